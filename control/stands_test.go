package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/control/config"
	"weir/dataplane/steer"
)

// Two cores live through the same random reloads, refusals and republications. One takes over what stands, and reads only what changed; the
// other compiles every service anew. What comes of it must be the same to the last backend, rule and connection count.
func TestWhatStandsIsWhatWouldBeCompiled(t *testing.T) {
	for seed := range uint64(15) {
		random := rand.New(rand.NewPCG(seed, 5))
		var reader config.Reader
		quick, naive := newScaleCore(t), newScaleCore(t)
		services := map[int]string{}
		taken := 0
		for step := range 25 {
			for range 1 + random.IntN(3) {
				n := random.IntN(8)
				if services[n] == "" || random.IntN(3) > 0 {
					services[n] = randomService(random, n)
				} else {
					delete(services, n)
				}
			}
			text := coreHead
			for n := range 8 {
				text += services[n]
			}
			read, diags := reader.Parse("f", []byte(text))
			again, _ := config.Parse("f", []byte(text))
			if config.HasErrors(diags) {
				t.Fatalf("%v\n%s", config.Errors(diags), text)
			}
			for _, s := range naive.reg.services {
				s.from = nil
			}
			for _, s := range quick.reg.services {
				if s.from != nil {
					taken++
				}
			}
			a, b := prepared(t, quick, read), prepared(t, naive, again)
			equalCompiled(t, fmt.Sprintf("seed %d, step %d", seed, step), a, b)
			if random.IntN(4) == 0 {
				quick.undo()
				naive.undo()
				continue
			}
			for _, x := range []struct {
				core *core
				cfg  *config.Config
				made *compiled
			}{{quick, read, a}, {naive, again, b}} {
				if err := x.core.publish(x.cfg, x.made, time.Now()); err != nil {
					t.Fatal(err)
				}
				if step%5 == 4 {
					x.core.reg.collect(time.Now().Add(time.Minute), x.core.engine.Backend)
					slices.Sort(x.core.reg.free) // they come in a map's order
				}
			}
		}
		if taken == 0 {
			t.Error("nothing was ever taken over")
		}
	}
}

// randomService is a service of which this or that may be different the next time.
func randomService(r *rand.Rand, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - vip: 198.19.0.%d\n    port: 80\n    forward: %s\n    scheduler: %s\n", n, []string{"nat", "nat", "dr", "ipip"}[r.IntN(4)],
		[]string{"rr", "wlc"}[r.IntN(2)])
	if r.IntN(4) == 0 {
		b.WriteString("    expire_nodest_conn: true\n")
	}
	if r.IntN(4) == 0 && strings.Contains(b.String(), "forward: nat") {
		b.WriteString("    masquerade: always\n")
	}
	b.WriteString("    backends:\n")
	for i := range 1 + r.IntN(4) {
		fmt.Fprintf(&b, "      - {address: 198.18.1.%d, port: 80, weight: %d, backup: %v}\n", 10+i, 1+r.IntN(2), i == 3)
	}
	return b.String()
}

func prepared(t *testing.T, c *core, cfg *config.Config) *compiled {
	t.Helper()
	x, err := c.prepare(cfg, scaleSurroundings(cfg))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func equalCompiled(t *testing.T, when string, a, b *compiled) {
	t.Helper()
	text := func(x *compiled) string {
		r := *x.rules
		slices.SortFunc(r.Servers, func(a, b steer.Server) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		slices.SortFunc(r.NAT, func(a, b steer.NAT) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		slices.SortFunc(r.Tunnels, func(a, b steer.Tunnel) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		s := fmt.Sprintf("%+v\n%v %v %v\n", r, x.vips, x.sources, x.gone)
		for id, b := range x.snapshot.Backends {
			// What is shared from snapshot to snapshot is another core's.
			timeouts, sources := b.Timeouts, b.Sources
			path := b.Path != nil
			b.Timeouts, b.Sources, b.Load, b.Path = nil, nil, nil, nil
			s += fmt.Sprintf("%d: %+v path %v", id, b, path)
			if timeouts != nil {
				s += fmt.Sprint(*timeouts)
			}
			if sources != nil {
				s += fmt.Sprintf(" from %v %d-%d %v %v", sources.Addrs, sources.From, sources.To, sources.When, sources.TOA)
			}
			s += "\n"
		}
		for _, svc := range x.snapshot.Services.All {
			s += fmt.Sprintf("%s %v %d-%d %v %v %s %d\n", svc.Name, svc.VIP, svc.Port, svc.PortTo, svc.Dests, svc.BackupDests, svc.Plan.Scheduler(),
				svc.Plan.Generation())
		}
		return s
	}
	if x, y := text(a), text(b); x != y {
		t.Fatalf("%s: what was taken over is\n%s\nbut compiled anew\n%s", when, x, y)
	}
}

func scaleSurroundings(cfg *config.Config) *surroundings {
	s := &surroundings{}
	for i := range cfg.Ports {
		p := &cfg.Ports[i]
		s.ports = append(s.ports, portOf(cfg, i, p.MAC, p.MTU, p.Addresses))
		s.devices = append(s.devices, steer.Port{Name: p.Name, MACs: [][6]byte{p.MAC}})
	}
	return s
}
