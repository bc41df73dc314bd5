package main_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// TestQueuesByNumber gives a worker the second queue of wan alone: what comes in there is balanced, what comes in on the first is dropped, and the
// kernel, which has the VIP too, answers none of it. On lan it has the first queue, the only one that the switch sends to.
func TestQueuesByNumber(t *testing.T) {
	needs(t, "ethtool")
	b := newBed(t, options{servers: 1, queues: 2, driver: "af_xdp", xdpMode: "native"})
	if r := command(t, b.fabric.Command("ethtool", "-L", "lb", "tx", "1")); r.code != 0 {
		t.Skipf("one send queue at the switch: %v", r)
	}
	b.answerUDP(0, 5353, bytes.ToUpper)
	ports := `ports:
  - {name: wan, interface: wan, xdp_mode: native, queues: "1"}
  - {name: lan, interface: lan, xdp_mode: native, queues: "0"}
services:`
	service := b.service(vip4, "port: 53, protocol: udp", 5353)
	d := b.start(b.config(ports, service))
	for _, p := range d.settled().Ports {
		if p.Queues != 1 {
			t.Errorf("port %s has %d queues, want 1", p.Name, p.Queues)
		}
	}
	ask := func() net.Conn {
		c, err := dial(b.client, "udp", hostPort(vip4, 53))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		_, err = c.Write([]byte("q"))
		must(t, err)
		return c
	}
	var buf [8]byte
	eventually(t, 20*time.Second, "a flow is answered: the server's MAC address is known", func() bool {
		c := ask()
		must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		n, _ := c.Read(buf[:])
		return n == 1
	})
	before := d.settled().Services[0].Traffic
	answered := 0
	const flows = 200 // spread over the queues by their hash
	var all []net.Conn
	for range flows {
		all = append(all, ask())
	}
	eventually(t, 10*time.Second, "as many answers as requests", func() bool {
		x := d.settled().Services[0].Minus(before)
		return x.InPackets > 0 && x.OutPackets == x.InPackets
	})
	s := d.settled()
	for _, c := range all {
		must(t, c.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		switch n, err := c.Read(buf[:]); {
		case err == nil && string(buf[:n]) == "Q":
			answered++
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("got %q, %v: an answer that is not the server's", buf[:n], err)
		}
	}
	got := int(s.Services[0].Minus(before).InPackets) // as many were answered, though the last answers may still be on the client's way
	if got == 0 || got == flows || answered > got {
		t.Errorf("%d of %d flows balanced, %d answered, want those on the second queue, some and not all", got, flows, answered)
	}
	t.Logf("%d of %d flows balanced, %d answered", got, flows, answered)

	for queues, want := range map[string]string{`"2"`: "wan has no receive queue 2, it receives on 2", `"0-1"`: ""} {
		d.stop()
		d = launch(t, b.lb, b.dir, b.config(strings.NewReplacer(`"1"`, queues, `"0"`, queues).Replace(ports), service))
		if want == "" {
			d.ready()
			continue
		}
		if code := d.wait(10 * time.Second); code != 1 || !strings.Contains(d.log.String(), want) {
			t.Errorf("queues %s: exit %d, no %q in %s", queues, code, want, d.log)
		}
		d = b.start(b.config(ports, service))
	}
}

// TestQueuesThatCameLater: what comes on a queue that a device did not have at the start is lost, so weir says so for as long as it has it.
func TestQueuesThatCameLater(t *testing.T) {
	needs(t, "ethtool")
	b := newBed(t, options{servers: 1, queues: 2, driver: "af_xdp", xdpMode: "native"})
	b.echoes(8000)
	for _, c := range []struct {
		space *testnet.Space
		args  []string
	}{{b.client, []string{"eth0", "tx", "1"}}, {b.lb, []string{"wan", "rx", "1"}}, {b.fabric, []string{"lb", "tx", "1"}}, {b.lb, []string{"lan", "rx", "1"}}} {
		if r := command(t, c.space.Command("ethtool", append([]string{"-L"}, c.args...)...)); r.code != 0 {
			t.Skipf("one queue for %v: %v", c.args, r)
		}
	}
	d := b.start(b.tcp())
	works(t, b.client, hostPort(vip4, 80), 3)
	if r := command(t, b.lb.Command("ethtool", "-L", "wan", "rx", "2")); r.code != 0 {
		t.Skipf("a second queue beside one with a socket: %v", r)
	}
	d.warns("wan", true)
	if out := d.cli("status"); !strings.Contains(out, "wan receives on 2 queues, but there are 1 workers") {
		t.Errorf("weir status does not say what is wrong:\n%s", out)
	}
	must(t, b.lb.Command("ethtool", "-L", "wan", "rx", "1").Run())
	d.warns("wan", false)
	works(t, b.client, hostPort(vip4, 80), 3)
}
