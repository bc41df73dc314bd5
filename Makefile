# weir. `make demo` shows it, `make test` proves it; README.md says the rest.

GO       ?= go
# The linter is pinned: a new version is a commit of its own.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME ?= 30s

.PHONY: build test test-ipvs demo chaos bench bench-go profile lint fuzz setup dist deb rpm image test-packages clean

# GOAMD64=v3 builds for CPUs with AVX2 (2013 and later): 1% less for each packet, measured by BenchmarkNAT. Go takes cmd/weir/default.pgo by itself.
build: ## bin/weir, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/weir ./cmd/weir

setup: ## install what tests and demo need and the machine lacks (Debian, as root)
	@.ci/setup

# The end-to-end tests run the binary as it is built for users, so a second time under the detector would only watch the tests themselves.
test: setup build ## every test as it runs, then all but the end-to-end ones under the race detector
	$(GO) test -timeout 20m ./...
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v '^weir/cmd/')

SEEDS ?= 400
FROM  ?= $(shell date +%s)
test-ipvs: setup ## SEEDS random scenarios, from seed FROM on, into the kernel's IPVS (user-mode-linux) and into weir; what differs is shrunk and printed
	cd control && WEIR_FROM=$(FROM) WEIR_SEEDS=$(SEEDS) $(GO) test -run '^TestIPVS$$' -count=1 -timeout 0

demo: setup build ## the whole thing on this machine, in network namespaces
	bin/weir demo

# SEED=7 does the same things at about the same times once more; CHAOS="--driver af_packet --queues 2" and the like: docs/chaos.md.
DURATION ?= 5m
SEED     ?= 0
chaos: setup build ## clients go through weir for DURATION while servers, links and weir itself fail; proves what each saw (as root)
	$(GO) build -trimpath -o bin/weir-chaos ./cmd/weir-chaos
	bin/weir-chaos --weir bin/weir --duration $(DURATION) --seed $(SEED) --out bin/chaos $(CHAOS)

# QUICK=1: under three minutes, too little to compare. ONLY=rate|latency: some sections. The report goes to bench/results/, or OUT.
OUT ?= bench/results
bench: build ## weir beside other forwarders on this machine (as root, Debian), under half an hour: bench/results/README.md
	@bench/setup
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/weir-bench ./cmd/weir-bench
	bin/weir-bench --weir bin/weir --out $(OUT) $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)')

bench-go: ## the pipeline on memory rings; needs no root
	$(GO) test -run '^$$' -bench . ./bench/...

# By it the compiler chooses what to inline: after a change of the pipeline's functions, when the machine is quiet.
profile: ## cmd/weir/default.pgo anew, from where the pipeline's benchmarks spend their time
	$(GO) test -pgo=off -run '^$$' -bench '$(PROFILED)' -cpuprofile cmd/weir/default.pgo -o /dev/null ./bench
PROFILED = BenchmarkNAT$$/conns=1000(00)?$$|BenchmarkNAT6$$/conns=1000(00)?$$|BenchmarkNewConn$$|BenchmarkVXLAN|BenchmarkNATVXLAN|BenchmarkRequests|BenchmarkBridge

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt these:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzzminimizetime 10x -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; done

# Packages, in dist/. nfpm is pinned like the linter, and compiled at the first call. deb and rpm take one architecture; VERSION must begin with a digit.
NFPM = github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4
VERSION    ?= 0.0.$(shell git rev-list --count HEAD 2>/dev/null || echo 0)
MAINTAINER ?= weir <weir@localhost>
ARCH       ?= $(shell $(GO) env GOARCH)
export VERSION MAINTAINER ARCH

dist: ## what packages are made of: binary, manual pages, completions
	GO=$(GO) packaging/dist

deb rpm: dist ## a package: make deb rpm VERSION=1.2.3 MAINTAINER='You <you@your.net>'
	$(GO) run $(NFPM) package --config packaging/nfpm.yaml --packager $@ --target dist/

image: dist ## dist/weir-image.tar, an OCI image; no container engine is asked
	$(GO) run ./packaging/image -version $(VERSION) -arch $(ARCH) -epoch $$(git log -1 --format=%ct 2>/dev/null || echo 0)

test-packages: deb ## lintian, the unit judged, and the deb installed into a Debian 12 root, started, asked, removed, purged (as root, minutes)
	packaging/test

clean:
	rm -rf bin dist
