package health

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestRemembered: a monitor that is told what another knew begins with it; of a target that is asked in two ways with two answers, and of one that
// nobody has asked, it begins as configured.
func TestRemembered(t *testing.T) {
	at := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, last}), 80)
	}
	check := func(kind Kind, last byte, send string) Check {
		return Check{Kind: kind, Target: at(last), Interval: time.Hour, Timeout: time.Second, Rise: 1, Fall: 1, Send: send}
	}
	good, bad, torn1, torn2, new := check(TCP, 1, ""), check(TCP, 2, ""), check(TCP, 3, "a"), check(TCP, 3, "b"), check(TCP, 4, "")
	refused := errors.New("connection refused")
	changed := make(chan struct{}, 100)
	a := NewMonitor(Options{Jitter: func(time.Duration) time.Duration { return 0 }, Changed: func() { changed <- struct{}{} }, Probe: func(_ context.Context, c *Check) error {
		if c.Target == at(2) || c.Send == "b" {
			return refused
		}
		return nil
	}})
	defer a.Close()
	a.Set([]Check{good, bad, torn1, torn2})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n := 0
		for _, c := range []Check{good, bad, torn1, torn2} {
			if s := a.State(c); s.Answered() {
				n++
			}
		}
		if n == 4 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 4 checks were done", n)
		}
	}
	never := func(time.Duration) time.Duration { return time.Minute }
	b := NewMonitor(Options{Jitter: never, Probe: func(context.Context, *Check) error { return nil }})
	defer b.Close()
	b.Remember(a.Known())
	b.Set([]Check{good, bad, torn1, torn2, new})
	for _, x := range []struct {
		name  string
		check Check
		up    bool
		why   string
	}{{"good", good, true, ""}, {"bad", bad, false, refused.Error()}, {"torn", torn1, true, ""}, {"torn", torn2, true, ""}, {"new", new, true, ""}} {
		s := b.State(x.check)
		if s.Up != x.up || s.Why != x.why || s.Answered() {
			t.Errorf("%s begins as %+v, want up %v, why %q, and no answer yet", x.name, s, x.up, x.why)
		}
	}
	if got, want := b.State(bad).Since, a.State(bad).Since; !got.Equal(want) {
		t.Errorf("down since %v, want %v", got, want)
	}
}

// TestOneAnswerDoesNotUndoWhatWasKnown: what another process knew, or a check that was edited, is not given up for one answer where it takes three.
func TestOneAnswerDoesNotUndoWhatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := netip.MustParseAddrPort("198.18.1.1:80")
		check := Check{Target: target, Interval: 10 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
		edited := check
		edited.Interval = 20 * time.Second
		m := NewMonitor(Options{Jitter: func(time.Duration) time.Duration { return 0 }, Probe: func(context.Context, *Check) error { return errors.New("lost") }})
		defer m.Close()
		m.Remember([]Known{{TCP, target, true, time.Now(), ""}})
		for i, c := range []Check{check, edited} {
			m.Set([]Check{c})
			time.Sleep(time.Second)
			if s := m.State(c); !s.Up || s.Failed != 1 {
				t.Errorf("monitor %d: after one failure of three it is %+v", i, s)
			}
		}
		time.Sleep(time.Minute)
		if s := m.State(edited); s.Up || s.Failed < 3 {
			t.Errorf("after three it is %+v", s)
		}
	})
}
