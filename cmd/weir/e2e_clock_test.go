package main_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weir/control"
)

// TestAnotherClock kills weir and starts it in time namespaces whose monotonic clock is a day ahead and then a minute behind: connections go on, their
// timers too, and the pinned program believes the heartbeat.
func TestAnotherClock(t *testing.T) {
	needsPins(t)
	ahead := func(seconds int) []string {
		return []string{"unshare", "--time", "--monotonic", fmt.Sprint(seconds), "--boottime", fmt.Sprint(seconds)}
	}
	probe := append(ahead(60), "cat", "/proc/uptime")
	var there, here float64
	out, err := exec.Command(probe[0], probe[1:]...).Output()
	own, err2 := exec.Command("cat", "/proc/uptime").Output()
	_, _ = fmt.Sscan(string(out), &there)
	_, _ = fmt.Sscan(string(own), &here)
	if err != nil || err2 != nil || there < here+30 {
		t.Skipf("no program can be executed with another clock (root, CONFIG_TIME_NS, Linux 6.1): %v, uptime %v there, %v here", err, there, here)
	}
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	resets := b.resets()
	config := b.config("services:", b.service(vip4, "port: 80, protocol: tcp, conntrack: {timeouts: {tcp_established: 600s}}", 8000), "grace: 2s")
	d := launchBy(t, ahead(86400), b.lb, b.dir, config)
	d.ready()
	if !strings.Contains(view[control.Status](d, "status").TableFile, "/table") {
		t.Skip("there is no place to keep a table in")
	}
	c, err := dial(b.client, "tcp", hostPort(vip4, 80))
	must(t, err)
	defer c.Close()
	must(t, pingPong(c, dialLimit))
	idle, err := dial(b.client, "tcp", hostPort(vip4, 80)) // says nothing over all kills
	must(t, err)
	defer idle.Close()
	must(t, pingPong(idle, dialLimit))
	begun := time.Now()
	at := netip.MustParseAddrPort(idle.LocalAddr().String())
	for _, seconds := range []int{-60, 86400, 0} {
		d.kill()
		var by []string
		if seconds != 0 {
			by = ahead(seconds)
		}
		d = launchBy(t, by, b.lb, b.dir, config)
		d.ready()
		must(t, pingPong(c, 2*dialLimit))
		left := -1.0
		for _, x := range view[[]control.ConnView](d, "conns") {
			if x.Client == at {
				left = x.ExpiresS
			}
		}
		if silent := time.Since(begun).Seconds(); left > 601 || left < 600-silent-2 { // deadlines are rounded up
			t.Errorf("with a clock %d s ahead a connection that is silent for %.1f s ends in %.1f s, it should in %.1f", seconds, silent, left, 600-silent)
		}
	}
	must(t, pingPong(idle, 2*dialLimit))
	if n := resets.Load(); n != 0 {
		t.Errorf("%d RSTs reached the client", n)
	}

	// The heartbeat is the kernel's time, too: within grace what is weir's is held back, and after it the host answers.
	d.kill()
	d = launchBy(t, ahead(86400), b.lb, b.dir, config)
	d.ready()
	d.kill()
	killed := time.Now()
	_, err = dialWithin(b.client, hostPort(vip4, 80), 500*time.Millisecond)
	if err == nil || time.Since(killed) < 2*time.Second && strings.Contains(err.Error(), "refused") {
		t.Errorf("right after a kill: %v, want silence", err)
	}
	eventually(t, 20*time.Second, "the host answers when grace is over", func() bool {
		_, err := dialWithin(b.client, hostPort(vip4, 80), 500*time.Millisecond)
		return err != nil && strings.Contains(err.Error(), "refused")
	})
}
