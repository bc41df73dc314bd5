package main_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/control"
	"weir/control/host/testnet"
)

// many is a configuration with n services besides those of tcp.
func (b *bed) many(n int, more ...string) string {
	var s strings.Builder
	s.WriteString(b.tcp(more...))
	for i := range n {
		s.WriteString(b.service(fmt.Sprintf("198.18.9.%d", 20+i/100), fmt.Sprintf("port: %d, protocol: tcp, scheduler: rr", 1000+i%100), 8000))
	}
	return s.String()
}

func TestACleanStop(t *testing.T) {
	needs(t, "ethtool")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, o := range drivers {
			if sig == syscall.SIGINT && o.xdpMode != "native" {
				continue
			}
			t.Run(fmt.Sprint(o, " ", sig), func(t *testing.T) {
				b := newBed(t, o)
				b.echoes(8000)
				must(t, b.lb.Command("ethtool", "-K", "wan", "rx", "on", "tx", "on", "tso", "on", "gso", "on", "gro", "on").Run())
				before := in(t, b.lb, "ethtool", "-k", "wan")
				d := b.start(b.tcp())
				if during := in(t, b.lb, "ethtool", "-k", "wan"); during == before {
					t.Error("no offload was switched off")
				}
				works(t, b.client, hostPort(vip4, 80), 1)
				streams(t, b.client, hostPort(vip4, 80), 3, 5*time.Second) // it stops under load, which breaks

				begun := time.Now()
				d.signal(sig)
				// Whoever sees the program gone must, looking after that, see the VIPs gone.
				for ended := false; !ended; {
					select {
					case <-d.ended:
						ended = true
					default:
					}
					if o.driver == "af_xdp" && (xdp(t, b.lb, "wan") == 0 || xdp(t, b.lb, "lan") == 0) && (has(t, b.lb, vip4) || has(t, b.lb, vip6)) {
						t.Fatal("the program is gone, but the VIPs are there")
					}
				}
				took := time.Since(begun)
				if code := d.wait(time.Second); code != 0 || took > 3*time.Second {
					t.Errorf("exit %d after %v", code, took)
				}
				b.nothingLeft(d)
				if after := in(t, b.lb, "ethtool", "-k", "wan"); after != before {
					t.Errorf("offloads before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
}

func TestSIGTERMDuringAReload(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	for i := range 5 {
		d := b.start(b.tcp())
		works(t, b.client, hostPort(vip4, 80), 1)
		d.write(b.many(500))
		d.signal(syscall.SIGHUP)
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // at several points of the reload
		if code := d.stop(); code != 0 {
			t.Errorf("exit %d", code)
		}
		b.nothingLeft(d)
		if has(t, b.lb, "198.18.9.20") {
			t.Error("a VIP of the reload is left")
		}
	}
}

// dialing makes one connection after the other until stop is called, which returns how many worked and what failed, or t ends: the next test's
// namespace has the same name.
func dialing(t testing.TB, s *testnet.Space, to string) (stop func() (int, []error)) {
	quit := make(chan struct{})
	end := sync.OnceFunc(func() { close(quit) })
	t.Cleanup(end)
	var wg sync.WaitGroup
	n, errs := 0, []error(nil)
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			c, err := dial(s, "tcp", to)
			if err == nil {
				err = pingPong(c, 5*time.Second)
				c.Close()
			}
			if err != nil {
				errs = append(errs, err)
			} else {
				n++
			}
		}
	})
	return func() (int, []error) {
		end()
		wg.Wait()
		return n, errs
	}
}

func TestAStormOfSIGHUPUnderLoad(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	d := b.start(b.tcp())
	all := streams(t, b.client, hostPort(vip4, 80), 10, 5*time.Second)
	stop := dialing(t, b.client, hostPort(vip6, 80))
	for i := range 100 {
		d.write(b.many(i%3, "grace: 9s"))
		d.signal(syscall.SIGHUP)
		time.Sleep(10 * time.Millisecond) // 100 in a second
	}
	flows(t, all, 5*time.Second)
	if n, errs := stop(); n == 0 || len(errs) > 0 {
		t.Errorf("%d new connections worked, and these did not: %v", n, errs)
	}
	finish(t, all)
	d.runs()
	// The last one counts, however many were lost in between (a signal that is pending comes once).
	eventually(t, 5*time.Second, "the last configuration holds", func() bool { return len(d.now().Services) == 2 })
	var s control.Status
	must(t, control.NewClient(d.socket).Get("/status", &s))
	if !s.LastReloadOK || s.Generation < 10 {
		t.Errorf("after the storm: %+v", s)
	}
	t.Logf("100 SIGHUPs made %d reloads", s.Generation-1)
	if v := d.settled().Verdicts; v.Dropped != 0 {
		t.Errorf("drops: %s", d.cli("drops"))
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// holdings are what a process must not gather: open files, threads, and resident memory in MiB.
func (d *daemon) holdings() (files, threads, mib int) {
	d.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid()))
	must(d.t, err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
	must(d.t, err)
	number := func(key string) int {
		_, rest, _ := strings.Cut(string(status), "\n"+key+":")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		must(d.t, err)
		return n
	}
	return len(entries), number("Threads"), number("VmRSS") / 1024
}

func TestReloadsUnderTrafficLoseAndLeakNothing(t *testing.T) {
	for _, o := range drivers {
		if o.xdpMode == "generic" {
			continue // nothing here depends on it
		}
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.echoes(8000)
			const small = "conntrack: {max_connections: 16384}" // or the table's memory, touched bit by bit, would hide a leak
			d := b.start(b.tcp(small))
			client := control.NewClient(d.socket)
			// Weights, grace, VIPs and services change; the servers of the streams stay.
			configs := []string{b.tcp(small), b.many(20, small), b.tcp(small, "grace: 8s"), b.many(3, small),
				b.config(small, "services:", b.service(vip4, "port: 80, protocol: tcp, scheduler: wrr", 8000, 3, 2, 1)+
					b.service(vip6, "port: 80, protocol: tcp, scheduler: wlc", 8000, 1, 5, 9))}
			reload := func(i int) {
				t.Helper()
				d.write(configs[i%len(configs)])
				if o, err := client.Reload(); err != nil || !o.OK {
					t.Fatalf("reload %d: %+v, %v", i, o, err)
				}
			}
			all := streams(t, b.client, hostPort(vip4, 80), 6, 5*time.Second)
			all = append(all, streams(t, b.client, hostPort(vip6, 80), 6, 5*time.Second)...)
			stop := dialing(t, b.client, hostPort(vip4, 80))
			for i := range 20 { // until everything has been allocated once
				reload(i)
			}
			files, threads, mib := d.holdings()
			for i := range 200 {
				reload(i)
			}
			flows(t, all, 5*time.Second)
			n, errs := stop()
			if n == 0 || len(errs) > 0 {
				t.Errorf("%d new connections worked, and these did not: %v", n, errs)
			}
			finish(t, all)
			files2, threads2, mib2 := d.holdings()
			t.Logf("%d connections; files %d, then %d; threads %d, then %d; resident MiB %d, then %d", n, files, files2, threads, threads2, mib, mib2)
			// The admin socket may have one connection more or less open; on a busy machine the runtime makes threads, but not one a reload.
			if files2 > files+2 || threads2 > threads+50 || mib2 > mib+16 {
				t.Errorf("200 reloads: files %d, then %d; threads %d, then %d; resident MiB %d, then %d", files, files2, threads, threads2, mib, mib2)
			}
			if s := d.settled(); s.Verdicts.Dropped != 0 || s.Generation != 221 {
				t.Errorf("generation %d, drops: %s", s.Generation, d.cli("drops"))
			}
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}
