package control

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/control/systemd"
)

// TestWatchdog: signs of life come while the control loop and all workers move, stop when one of them does, and come again when it goes on.
func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const patience = 800 * time.Millisecond
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "800000")
	t.Setenv("WATCHDOG_PID", "")
	manager, err := systemd.Open()
	if err != nil {
		t.Fatal(err)
	}
	c := &Control{options: Options{Manager: manager}, log: slog.New(slog.DiscardHandler), ports: &ports{beats: make([]beat, 2)}}
	movers := []*beat{&c.pulse, &c.ports.beats[0], &c.ports.beats[1]}
	names := []string{"control loop", "worker 0", "worker 1"}
	var stuck atomic.Int32 // the one that hangs, from 1; 0: none
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			for i, b := range movers {
				if int(stuck.Load()) != i+1 {
					b.now()
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	group.Go(func() { c.watchdog(ctx) })
	defer group.Wait()
	defer cancel()
	// heard counts signs of life; it ends after limit, or once there are enough.
	heard := func(enough int, limit time.Duration) (n int) {
		b := make([]byte, 100)
		for _ = l.SetReadDeadline(time.Now().Add(limit)); n < enough; n++ {
			m, err := l.Read(b)
			if err != nil {
				return n
			}
			if string(b[:m]) != "WATCHDOG=1" {
				t.Errorf("said %q", b[:m])
			}
		}
		return n
	}
	const long = 30 * time.Second // on a machine that does other things
	for i, name := range names {
		if heard(2, long) < 2 {
			t.Fatalf("before %s hangs: no signs of life", name)
		}
		stuck.Store(int32(i + 1))
		for found := false; !found; time.Sleep(10 * time.Millisecond) { // the machine may keep the others away, too, for a moment
			got := told(c.moving(patience / 2))
			found = len(got) == 1 && got[0] == name
		}
		heard(100, 100*time.Millisecond) // what was sent before
		if n := heard(100, 2*patience); n > 1 {
			t.Errorf("%s hangs, and %d signs of life came: at most one can have been under way", name, n)
		}
		stuck.Store(0)
	}
	if heard(2, long) < 2 {
		t.Error("nothing hangs any more, and no signs of life came")
	}
}

// told are the names of probes that fail.
func told(all []probe) (names []string) {
	for _, p := range all {
		if p.err != "" {
			names = append(names, strings.TrimSpace(p.name))
		}
	}
	return names
}
