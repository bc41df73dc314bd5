package main_test

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
)

// families are the VIPs that tests go to, one of each family.
var families = []struct{ name, vip string }{{"IPv4", vip4}, {"IPv6", vip6}}

// web is a configuration with a service at port 80 of both VIPs.
func (b *bed) web(scheduler string, weights ...int) string {
	head := "port: 80, protocol: tcp, scheduler: " + scheduler
	return b.config("services:", b.service(vip4, head, 8000, weights...)+b.service(vip6, head, 8000, weights...))
}

func TestNginxIsSpreadByWeightExactly(t *testing.T) {
	for _, o := range append(drivers, options{oneArm: true}) {
		name := o.String()
		if o.oneArm {
			name = "one-arm"
		}
		t.Run(name, func(t *testing.T) {
			b := newBed(t, o)
			for i := range b.servers {
				b.nginx(i, 8000)
			}
			d := b.start(b.web("wrr", 3, 2, 1))
			for n, f := range families {
				t.Run(f.name, func(t *testing.T) {
					b := b.with(t)
					var got strings.Builder
					for range 60 {
						got.WriteString(b.curl("http://" + hostPort(f.vip, 80) + "/"))
					}
					if all := tallied(t, got.String()); !maps.Equal(all, map[string]int{"s1": 30, "s2": 20, "s3": 10}) {
						t.Errorf("60 requests went to %v", all)
					}
					if first := strings.Fields(got.String())[:6]; strings.Join(first, " ") != "s1 s2 s3 s1 s1 s2" { // as after ipvsadm -a, one by one
						t.Errorf("the first six went to %v", first)
					}
					s := d.settled().Services[n]
					if s.Conns != 60 || s.Backends[0].Conns != 30 || s.Backends[1].Conns != 20 || s.Backends[2].Conns != 10 {
						t.Errorf("counted %+v", s)
					}
				})
			}
			if code := d.stop(); code != 0 {
				t.Errorf("SIGTERM: exit %d", code)
			}
		})
	}
}

func TestKeepAliveKeepsTheServer(t *testing.T) {
	b := newBed(t, options{})
	for i := range b.servers {
		b.nginx(i, 8000)
	}
	d := b.start(b.web("rr"))
	for n, f := range families {
		t.Run(f.name, func(t *testing.T) {
			b := b.with(t)
			url := "http://" + hostPort(f.vip, 80) + "/"
			out := b.curl(strings.Fields(strings.Repeat(url+" ", 50))...)
			all := tallied(t, out)
			if len(all) != 1 || len(strings.Fields(out)) != 50 {
				t.Errorf("50 requests over one connection: %v", all)
			}
			if s := d.settled().Services[n]; s.Conns != 1 {
				t.Errorf("%d connections counted", s.Conns)
			}
		})
	}
}

func TestWrkSeesNoSocketError(t *testing.T) {
	needs(t, "wrk")
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			seconds := 1
			if o.xdpMode == "native" && !testing.Short() {
				seconds = 3
			}
			b := newBed(t, o)
			for i := range b.servers {
				b.nginx(i, 8000)
			}
			d := b.start(b.web("wlc"))
			for _, f := range families {
				out := in(t, b.client, "wrk", "-t1", "-c16", fmt.Sprintf("-d%ds", seconds), "http://"+hostPort(f.vip, 80)+"/")
				t.Log(f.name, regexp.MustCompile(`Requests/sec: +[0-9.]+`).FindString(out))
				if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
					t.Errorf("%s", out)
				}
			}
			s := d.settled()
			if s.Verdicts.Dropped != 0 {
				t.Errorf("drops: %s", d.cli("drops"))
			}
			for _, p := range s.Ports {
				if o.xdpMode != "" && p.Mode != o.xdpMode {
					t.Errorf("port %s runs in mode %s, not %s", p.Name, p.Mode, o.xdpMode)
				}
				if p.RxLost+p.SendLost != 0 {
					t.Errorf("port %s lost %d received and %d sent", p.Name, p.RxLost, p.SendLost)
				}
			}
		})
	}
}
