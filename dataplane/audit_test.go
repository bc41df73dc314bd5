package dataplane_test

import (
	"testing"
	"time"

	"weir/dataplane/driver/wait"
	"weir/dataplane/packet/pkttest"
)

// A worker that turns rounds accounts for every chunk, and one that does not is not waited for.
func TestAuditFindsEveryChunk(t *testing.T) {
	_, r, ports, _ := running(t, wait.Adaptive)
	request := pkttest.UDP(client, dns).Payload([]byte("ping")).Frame(routerMAC, wanMAC)
	for range 20 {
		ports[wan].Inject(request)
		a, ok := r.Audit(enough)
		if !ok {
			t.Fatal("the worker did not come round")
		}
		if a.Chunks != 1024 || a.Missing() != 0 || len(a.Queues) != 2 {
			t.Fatalf("%+v: %d chunks are missing", a, a.Missing())
		}
	}
	r.Stop()
	if _, ok := r.Audit(time.Millisecond); ok {
		t.Error("a worker that has stopped answers")
	}
}

func TestAuditSaysWhatIsMissing(t *testing.T) {
	_, r, _, _ := running(t, wait.Poll)
	r.Stop() // now its pool is the test's
	r.Worker.TakeChunk()
	answered := make(chan int)
	go func() {
		a, _ := r.Audit(enough)
		answered <- a.Missing()
	}()
	for {
		select {
		case missing := <-answered:
			if missing != 1 {
				t.Errorf("%d chunks are missing, one was taken", missing)
			}
			return
		default:
			r.Worker.Round(time.Now().UnixNano())
		}
	}
}
