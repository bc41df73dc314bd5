package main_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/control"
)

// screenshots is where TestDashboard leaves its pictures; without it, where nobody finds them afterwards. With it the test takes two minutes, so that charts have
// something to show:
//
//	WEIR_SCREENSHOTS=/tmp go test ./cmd/weir -run '^TestDashboard$' -count=1
const screenshots = "WEIR_SCREENSHOTS"

// dashboardConfig is a service with checks in front of nginx, a quiet one, one by UDP, and a segment whose peer is a server's kernel. A name tries to be markup.
func dashboardConfig(b *bed, extra string) string {
	at := func(i, port int) string {
		return fmt.Sprintf("{name: web%d, address: %s, port: %d", i+1, server4(i), port)
	}
	return b.config(`admin: {http: "127.0.0.1:9180"}`, "services:\n"+
		"  - {name: web, vip: "+vip4+", port: 80, protocol: tcp, scheduler: wrr, check: {type: tcp, interval: 300ms, timeout: 20s, rise: 1, fall: 1}, backends: ["+
		at(0, 8000)+", weight: 3}, "+at(1, 8000)+", weight: 2}, "+at(2, 8000)+"}]}\n"+
		"  - {name: \""+hostile()+"\", vip: 198.18.9.10, port: 443, protocol: tcp, scheduler: mh, backends: ["+at(0, 8443)+"}, "+at(1, 8443)+", state: drain}]}\n"+
		"  - {name: dns, vip: 198.18.9.53, port: 53, protocol: udp, scheduler: rr, backends: ["+at(0, 53)+"}, "+at(1, 53)+"}]}\n"+
		"  - {name: app, vip: 198.18.9.20, port: 80, protocol: tcp, scheduler: wlc, forward: vxlan, backends: [{name: app1, address: 172.16.1.11, port: 8000, vni: 5001}]}\n"+
		extra,
		"vxlan: {segments: [{vni: 5001, vtep: "+lan4+", peers: ["+server4(0)+"], gateway: {address: 172.16.1.1/24, mac: \"02:00:00:00:50:01\"}}]}")
}

// hostile is a service's name that tries to be markup, but for pictures.
func hostile() string {
	if _, pictures := os.LookupEnv(screenshots); pictures {
		return "shop"
	}
	return "<h1>shop</h1>"
}

// traffic keeps clients busy until ctx ends: requests over connections of their own, some by UDP, some through the segment, some to nowhere.
func (b *bed) traffic(ctx context.Context) {
	ask := func(at string, pause time.Duration, each func(n int) (pause time.Duration)) {
		for n := 0; ctx.Err() == nil; n++ {
			if c, err := dial(b.client, "tcp", at); err == nil {
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := fmt.Fprintf(c, "GET /page HTTP/1.0\r\n\r\n"); err == nil {
					_, _ = new(bytes.Buffer).ReadFrom(c)
				}
				c.Close()
			}
			time.Sleep(pause + each(n))
		}
	}
	wave := func(n int) time.Duration {
		return time.Duration(float64(4*time.Millisecond) * (1 + math.Sin(float64(n)/300)))
	}
	none := func(int) time.Duration { return 0 }
	go ask(hostPort(vip4, 80), 4*time.Millisecond, wave)
	go ask(hostPort(vip4, 80), 8*time.Millisecond, wave)
	go ask(hostPort("198.18.9.20", 80), 15*time.Millisecond, none)
	go func() {
		c, err := dial(b.client, "udp", hostPort("198.18.9.53", 53))
		if err != nil {
			return
		}
		defer c.Close()
		for n := 0; ctx.Err() == nil; n++ {
			_, _ = c.Write([]byte("question"))
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

// TestDashboard looks at a weir under traffic with a browser, as large and small, light and dark as people do.
func TestDashboard(t *testing.T) {
	needs(t, "chromium", "nginx")
	b := newBed(t, options{servers: 3})
	var roots []string
	for i := range b.servers {
		root := b.nginx(i, 8000)
		roots = append(roots, root)
		must(t, os.WriteFile(filepath.Join(root, "page"), bytes.Repeat([]byte("weir "), 2000), 0o644))
	}
	for i := range 2 {
		b.answerUDP(i, 53, func(q []byte) []byte { return append(q, bytes.Repeat([]byte("answer"), 20)...) })
	}
	s1 := b.servers[0]
	for _, line := range []string{"link add vx5001 type vxlan id 5001 local " + server4(0) + " dstport 4789 remote " + lan4, "link set vx5001 up", "route add 198.18.0.0/24 via 172.16.1.1 table 51"} {
		if strings.HasPrefix(line, "route") {
			must(t, s1.Address("vx5001", "172.16.1.11/24"))
		}
		must(t, s1.IP(line))
	}
	must(t, s1.IP("rule add from 172.16.1.11 table 51"))
	d := b.start(dashboardConfig(b, ""))
	d.becomes(0, "up")
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b.traffic(ctx)

	at := relay(t, b.lb, "127.0.0.1:9180")
	w := browse(t, "http://"+at)
	w.as(1360, 1500, "light")
	w.open("/")
	const backend = `document.querySelector('[data-service="tcp 198.18.9.9:80"] [data-backend="198.18.1.13:8000"]')`
	w.until(`document.body.className === "live" && document.querySelectorAll("#services tbody").length === 4 && ` + backend + `.cells[1].textContent === "up"`)
	w.until(`document.querySelector("#tile-packets .big").textContent.match(/^[1-9]/) !== null`)
	w.until(`document.querySelector("#workers tbody").rows.length > 0 && document.querySelector("#ports tbody").rows.length === 2 && document.querySelectorAll("#log li").length > 2`)
	w.until(`!document.getElementById("segments").hidden`)
	if name := eval[string](w, `document.querySelector('[data-service="tcp 198.18.9.10:443"] .title').textContent`); name != hostile() || eval[int](w, `document.querySelectorAll("table h1").length`) != 0 {
		t.Errorf("the name that tries to be markup is shown as %q", name)
	}
	w.clean()

	t.Run("numbers", func(t *testing.T) { sameNumbers(t, d, w) })

	dir, slow := os.LookupEnv(screenshots)
	if !slow {
		dir = t.TempDir()
	} else {
		time.Sleep(95 * time.Second)
	}
	t.Run("sizes", func(t *testing.T) {
		for _, x := range []struct {
			name          string
			width, height int64
			scheme        string
		}{
			{"dashboard", 1360, 1500, "light"}, {"dashboard-dark", 1360, 1500, "dark"}, {"dashboard-tablet", 820, 1180, "light"},
			{"dashboard-phone", 360, 780, "dark"}, {"dashboard-phone-light", 360, 2400, "light"},
		} {
			w.as(x.width, x.height, x.scheme)
			w.until(fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, x.width, x.scheme))
			if wide := eval[[]string](w, `[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".sr, .skip, thead")).map(e => e.tagName + "." + e.className)`); len(wide) > 0 || eval[int](w, "document.documentElement.scrollWidth") > int(x.width) {
				t.Errorf("%s: beyond the right edge: %q", x.name, wide)
			}
			time.Sleep(1500 * time.Millisecond) // charts draw with the next sample
			shot, err := png.Decode(bytes.NewReader(w.shoot(filepath.Join(dir, x.name+".png"))))
			if err != nil || shot.Bounds().Dx() < int(x.width) {
				t.Errorf("%s: %v %v", x.name, shot.Bounds(), err)
			}
		}
		if light := eval[string](w, `getComputedStyle(document.body).backgroundColor`); light == "" {
			t.Error("no colour")
		} else if w.as(360, 780, "dark"); eval[string](w, `getComputedStyle(document.body).backgroundColor`) == light {
			t.Errorf("light and dark are both %s", light)
		}
		w.clean()
	})
	w.as(1360, 1500, "light")

	t.Run("search", func(t *testing.T) {
		w.search("198.18.9.53")
		w.until(`document.querySelectorAll("#services tbody").length === 1 && document.querySelector("#services tbody").dataset.service === "udp 198.18.9.53:53" && document.body.className === "live"`)
		w.search("nobody")
		w.until(`!document.getElementById("services-empty").hidden`)
		w.search("")
		w.until(`document.querySelectorAll("#services tbody").length === 4`)
		w.clean()
	})

	t.Run("a server dies", func(t *testing.T) {
		colour := backend + `.querySelector(".pill")`
		up := eval[string](w, `getComputedStyle(`+colour+`).color`)
		b.stopNginx(2, 8000, roots[2])
		w.until(backend + `.cells[1].textContent === "down"`)
		if down := eval[string](w, `getComputedStyle(`+colour+`).color`); down == up || !red(down) {
			t.Errorf("up is %s, down is %s", up, down)
		}
		w.until(`[...document.querySelectorAll('#log li[data-kind="health"]')].some(e => e.textContent.includes("web3 of web: up → down"))`)
		if slow {
			time.Sleep(5 * time.Second)
			w.shoot(filepath.Join(dir, "dashboard-down.png"))
		}
		w.clean()
	})

	t.Run("reload", func(t *testing.T) {
		d.reload(dashboardConfig(b, "  - {name: new, vip: 198.18.9.77, port: 80, protocol: tcp, backends: [{address: "+server4(0)+", port: 8000}]}\n"))
		w.until(`document.querySelectorAll("#services tbody").length === 5 && [...document.querySelectorAll('#log li[data-kind="reload"]')].some(e => e.textContent.includes("services +1 -0 ~0"))`)
		w.clean()
	})

	t.Run("weir goes and comes back", func(t *testing.T) {
		if code := d.stop(); code != 0 { // at once, though somebody watches
			t.Errorf("exit %d", code)
		}
		w.until(`document.body.className === "lost" && document.getElementById("link").textContent.includes("connection lost, retrying")`)
		w.forget()
		d = b.start(dashboardConfig(b, ""))
		w.until(`document.body.className === "live" && document.querySelectorAll("#services tbody").length === 4`)
	})
}

// search types what to look for.
func (b *browser) search(what string) {
	b.t.Helper()
	eval[bool](b, `(q => { q.value = `+strconv.Quote(what)+`; return q.dispatchEvent(new Event("input")); })(document.getElementById("q"))`)
}

// red reports whether a computed colour, rgb(R, G, B), is.
func red(colour string) bool {
	var r, g, b int
	_, err := fmt.Sscanf(colour, "rgb(%d, %d, %d)", &r, &g, &b)
	return err == nil && r > 3*g/2 && r > 3*b/2
}

// sameNumbers compares the page with what the API says before and after.
func sameNumbers(t *testing.T, d *daemon, w *browser) {
	number := func(s string) float64 {
		s = strings.ReplaceAll(strings.TrimSpace(s), "\u202f", "")
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Errorf("a number %q", s)
		}
		return n
	}
	before := d.stats()
	for range 2 { // the page is of a moment between the two
		was := eval[string](w, `document.querySelector("#verdicts b").textContent`)
		w.until(`document.querySelector("#verdicts b").textContent !== ` + strconv.Quote(was))
	}
	shown := eval[[]string](w, `[...document.querySelectorAll("#verdicts b")].map(e => e.textContent)`)
	after := d.stats()
	for i, x := range [][2]uint64{{before.Verdicts.Received, after.Verdicts.Received}, {before.Verdicts.Forwarded, after.Verdicts.Forwarded}} {
		if n := number(shown[i]); n < float64(x[0]) || n > float64(x[1]) {
			t.Errorf("the page says %v, the API %d before and %d after", n, x[0], x[1])
		}
	}
	// A rate is of the page's second, and of ours: with steady clients both are in the range of what clients can do, and not far apart. The mean of several.
	var page, api float64
	for range 4 {
		was := eval[string](w, `document.querySelector("#verdicts b").textContent`)
		var r control.Rates
		start := d.stats().Verdicts.Received
		now := time.Now()
		must(t, control.NewClient(d.socket).Get("/rates?interval=1s", &r))
		api += float64(d.stats().Verdicts.Received-start) / time.Since(now).Seconds()
		w.until(`document.querySelector("#verdicts b").textContent !== ` + strconv.Quote(was))
		text := eval[string](w, `document.querySelector("#tile-packets .big").textContent`)
		value, unit, _ := strings.Cut(strings.TrimSuffix(text, "pps"), "k")
		n := number(value)
		if unit != "" || strings.Contains(text, "k") {
			n *= 1000
		}
		page += n
	}
	if page < api/5 || page > 5*api { // counters were compared exactly; a machine that stalls has seconds without packets
		t.Errorf("the page says %.0f packets a second, the API %.0f", page/4, api/4)
	}
	if n := eval[int](w, `document.querySelectorAll('#services [data-service="tcp 198.18.9.9:80"] tr.below').length`); n != 3 {
		t.Errorf("%d servers of web", n)
	}
	if weight := eval[string](w, `document.querySelector('[data-backend="198.18.1.11:8000"]').cells[2].textContent`); weight != "3" {
		t.Errorf("its weight is %q", weight)
	}
}
