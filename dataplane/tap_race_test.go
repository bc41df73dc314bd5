package dataplane_test

import (
	"sync/atomic"
	"testing"
	"time"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestTapWhileRunning: observers come, read and go while a worker is at work; it never waits for them, and what each is shown is whole.
func TestTapWhileRunning(t *testing.T) {
	b := newBed(t)
	b.open(client, vip, web)
	frame := pkttest.Frame(pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes(), routerMAC, wanMAC)
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		rounds, buf := 0, make([]byte, 4096)
		for ; !stop.Load(); rounds++ {
			for range 8 {
				b.ports[wan].Inject(frame)
			}
			b.worker.Round(1e12 + int64(rounds))
			for ok := true; ok; {
				_, ok = b.ports[lan].Take(buf)
			}
		}
		done <- rounds
	}()
	shown := 0
	for deadline := time.Now().Add(20 * time.Second); shown < 2000 && time.Now().Before(deadline); {
		tap, err := b.engine.Tap(TapOptions{Slots: 64, PerSecond: 1e9, Until: 1e18})
		if err != nil {
			t.Fatal(err)
		}
		last, got := uint64(0), 0
		for range 20 {
			tap.Read(func(e *Event) bool {
				if e.Number <= last || e.Verdict != Forwarded || len(e.Frame.Data) != len(frame) || e.Frame.Data[53] != frame[53] || len(e.Sent.Data) != len(frame) {
					t.Errorf("after event %d: %+v", last, e)
				}
				last = e.Number
				got++
				return got < 1000
			})
			time.Sleep(time.Millisecond)
		}
		tap.Close()
		shown += got
	}
	stop.Store(true)
	if rounds := <-done; shown == 0 || rounds == 0 {
		t.Errorf("%d events shown in %d rounds", shown, rounds)
	}
}
