package demo

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"weir/control"
)

// weir shows a command against the balancer and what it prints.
func (d *demo) weir(args ...string) (string, error) {
	d.command(args...)
	out, err := d.lb.weir(args...)
	d.show("%s", out)
	return out, err
}

func (d *demo) network() (err error) {
	if d.bed, err = newBed(); err != nil {
		return err
	}
	d.show(`client 198.18.0.2 ---- wan [balancer] lan ---- switch ---- w1 198.18.1.11
       2001:db8::2         VIP 198.18.9.9            |---- w2 198.18.1.12
                               2001:db8:9::9         '---- w3 198.18.1.13`)
	return nil
}

func (d *demo) start() (err error) {
	if d.lb, err = d.bed.balance(d.ctx, d.Wait); err != nil {
		return err
	}
	if _, err = d.weir("ports"); err != nil {
		return err
	}
	var s control.Stats
	if err := d.lb.client.Get("/stats", &s); err != nil {
		return err
	}
	for _, p := range s.Ports {
		if p.Driver != "af_xdp" || !p.Up {
			return fmt.Errorf("port %s: driver %s, up %t", p.Name, p.Driver, p.Up)
		}
	}
	return nil
}

func (d *demo) spread() error {
	return d.requests("http://198.18.9.9/", 600, map[string]int{"w1": 300, "w2": 200, "w3": 100})
}

// requests sends n HTTP requests, one connection each, and demands that the servers got exactly want.
func (d *demo) requests(url string, n int, want map[string]int) error {
	got := map[string]int{}
	for range n {
		name, err := d.bed.get(d.ctx, url)
		if err != nil {
			return err
		}
		got[name]++
	}
	d.show("GET %s, %d times: w1 %d, w2 %d, w3 %d", url, n, got["w1"], got["w2"], got["w3"])
	return demand(got, want)
}

func demand(got, want map[string]int) error {
	for name, n := range want {
		if got[name] != n {
			return fmt.Errorf("spread %v, want exactly %v", got, want)
		}
	}
	return nil
}

func (d *demo) others() error {
	if err := d.requests("http://[2001:db8:9::9]/", 60, map[string]int{"w1": 30, "w2": 20, "w3": 10}); err != nil {
		return err
	}
	got := map[string]int{}
	var sockets []net.Conn // all stay open: a port that is used again would be the same client, and get the same server
	defer func() {
		for _, c := range sockets {
			c.Close()
		}
	}()
	for range 30 {
		c, err := d.bed.dial(d.ctx, "udp", "198.18.9.9:53")
		if err != nil {
			return err
		}
		sockets = append(sockets, c)
		name, err := ask(c)
		if err != nil {
			return err
		}
		got[name]++
	}
	d.show("UDP to 198.18.9.9:53, 30 clients: w1 %d, w2 %d, w3 %d", got["w1"], got["w2"], got["w3"])
	return demand(got, map[string]int{"w1": 10, "w2": 10, "w3": 10})
}

func (d *demo) tables() error {
	out, err := d.weir("list", "-o", "ipvsadm")
	if err != nil {
		return err
	}
	for _, want := range []string{"TCP  198.18.9.9:80 wrr", "UDP  198.18.9.9:53 rr", "-> 198.18.1.11:8000"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("the list lacks %q", want)
		}
	}
	if out, err = d.weir("conns", "--limit", "5"); err != nil {
		return err
	}
	if lines := strings.Count(strings.TrimSpace(out), "\n"); lines != 5 {
		return fmt.Errorf("%d connections, want 5", lines)
	}
	return nil
}

func (d *demo) refused() error {
	good, err := os.ReadFile(d.lb.config)
	if err != nil {
		return err
	}
	if err := d.lb.write(strings.Replace(string(good), "scheduler: wrr", "scheduler: wrrr", 1)); err != nil {
		return err
	}
	d.show("(the first scheduler is now called wrrr)")
	out, err := d.weir("reload")
	if err == nil || !strings.Contains(out, `unknown scheduler "wrrr" (did you mean "wrr"?)`) {
		return fmt.Errorf("the broken file was not refused as it should be (%v)", err)
	}
	if err := d.requests("http://198.18.9.9/", 6, map[string]int{"w1": 3, "w2": 2, "w3": 1}); err != nil {
		return fmt.Errorf("after the refused reload: %w", err)
	}
	return d.lb.write(string(good))
}

// accounts compares the balancer's sums with each other and with what this client did.
func (d *demo) accounts() error {
	var s control.Stats
	for before := uint64(0); ; before = s.Verdicts.Received { // until the last acknowledgment has come
		if err := d.lb.client.Get("/stats", &s); err != nil {
			return err
		}
		if s.Verdicts.Received == before {
			break
		}
		select {
		case <-d.ctx.Done():
			return d.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	v := s.Verdicts
	d.show("received %d = forwarded %d + answered %d + punted %d + consumed %d + dropped %d + held %d",
		v.Received, v.Forwarded, v.Answered, v.Punted, v.Consumed, v.Dropped, v.Held)
	if v.Received == 0 || v.Received != v.Forwarded+v.Answered+v.Punted+v.Consumed+v.Dropped+v.Held {
		return errors.New("the verdicts do not add up")
	}
	for _, x := range s.Services {
		want := d.bed.dialed(net.JoinHostPort(x.VIP.String(), fmt.Sprint(x.Port)))
		d.show("%-4s %4d connections counted, %4d made", x.Name, x.Conns, want)
		if x.Conns != want {
			return fmt.Errorf("service %s counts %d connections, the client made %d", x.Name, x.Conns, want)
		}
	}
	_, err := d.weir("stats")
	return err
}

func (d *demo) stop() error {
	if err := d.lb.stop(); err != nil {
		return err
	}
	left, err := d.bed.leftovers()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	d.show("SIGTERM: VIPs unbound, program detached, neighbours released")
	return nil
}
