package control

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"weir/control/config"
	"weir/control/health"
)

// TestWatchAgainstTwin lives through random reloads and compares who uses which check with what the whole configuration says each time.
func TestWatchAgainstTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		m := health.NewMonitor(health.Options{Probe: func(context.Context, *health.Check) error { return nil }})
		w := newWatch(m)
		var reader config.Reader
		services := map[int]string{}
		for step := range 30 {
			for range 1 + r.IntN(4) {
				n := r.IntN(6)
				if r.IntN(4) == 0 {
					delete(services, n)
					continue
				}
				var s strings.Builder
				fmt.Fprintf(&s, "  - vips: [198.19.0.%d, 198.19.1.%d]\n    port: 80\n%s%s    backends:\n", n, n,
					[]string{"", "", "    check: tcp\n", "    check: {type: http, path: /a}\n"}[r.IntN(4)], []string{"", "    passive: {}\n"}[r.IntN(2)])
				for host := range 1 + r.IntN(4) {
					fmt.Fprintf(&s, "      - {address: 198.18.1.%d, port: 8000%s}\n", 10+host, []string{"", "", ", check: none", ", check: icmp"}[r.IntN(4)])
				}
				services[n] = s.String()
			}
			text := coreHead
			for n := range 6 {
				text += services[n]
			}
			cfg, diags := reader.Parse("f", []byte(text))
			if config.HasErrors(diags) {
				t.Fatalf("%v\n%s", config.Errors(diags), text)
			}
			w.set(cfg)

			want, passive := map[health.Check][]backendKey{}, 0
			for i := range cfg.Services {
				s := &cfg.Services[i]
				for _, key := range keysOf(s) {
					if s.Passive != nil {
						passive++
					}
					for x := range backendsOf(s, key) {
						if c, ok := checkOf(x.config); ok {
							want[c] = append(want[c], x.key)
						}
					}
				}
			}
			if checks, _, _ := m.Load(); checks != len(want) || len(w.users) != len(want) || len(w.passive) != passive {
				t.Fatalf("seed %d, step %d: %d checks, %d used, %d passive; want %d and %d of\n%s", seed, step, checks, len(w.users), len(w.passive), len(want), passive, text)
			}
			for c, keys := range want {
				if !slices.Equal(sortedKeys(w.users[c]), sortedKeys(keys)) {
					t.Fatalf("seed %d, step %d: %v is used by %v, want %v", seed, step, c.Target, w.users[c], keys)
				}
			}
		}
		m.Close()
	}
}

func sortedKeys(keys []backendKey) (texts []string) {
	for _, k := range keys {
		texts = append(texts, fmt.Sprint(k))
	}
	slices.SortFunc(texts, cmp.Compare[string])
	return texts
}

// TestCheckOf turns words of the configuration into checks.
func TestCheckOf(t *testing.T) {
	for _, x := range []struct{ host, sni, want string }{
		{"", "", ""}, {"www.example", "", "www.example"}, {"www.example:8443", "", "www.example"}, {"198.18.1.1", "", ""}, {"198.18.1.1:443", "", ""},
		{"[2001:db8::1]:443", "", ""}, {"2001:db8::1", "", ""}, {"www.example", "other.example", "other.example"},
	} {
		b := &config.Backend{Check: &config.Check{Type: "https", Host: x.host, SNI: x.sni}}
		if c, ok := checkOf(b); !ok || c.SNI != x.want {
			t.Errorf("host %q, sni %q: %q is sent, want %q", x.host, x.sni, c.SNI, x.want)
		}
	}
	if _, ok := checkOf(&config.Backend{Check: &config.Check{Type: "none"}}); ok {
		t.Error("none is a check")
	}
	for _, name := range config.QueryTypes {
		if queryTypes[name] == 0 {
			t.Errorf("%s has no number", name)
		}
	}
	for _, name := range config.CheckTypes {
		c, ok := checkOf(&config.Backend{Port: 80, Check: &config.Check{Type: name}})
		if ok != (name != "none") || ok && c.Kind.String() != name {
			t.Errorf("%s became %v, %t", name, c.Kind, ok)
		}
	}
}
