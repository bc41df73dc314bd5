// Package drivertest is what every driver must do, as tests. A driver's own test opens a queue with a far end and calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, func(t *testing.T) drivertest.Link { ... })
//	}
//
// Frames of the suite bear the EtherType for experiments 0x88b5 and a number; anything else that comes out of the queue or of its far
// end (router solicitations of a real kernel, say) is put back or ignored. Chunks are counted at every step: free + held by the
// queue + held by the suite is all there are.
package drivertest

import (
	"testing"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// Link is a queue and its far end. The suite calls everything from the test's goroutine.
type Link struct {
	Queue driver.Queue
	Pool  *packet.Pool // of the queue alone, with at least 512 chunks

	// Inject sends a frame to the queue. It reports false when there is no room now; the suite then lets the queue receive and tries
	// again. nil: the link receives nothing.
	Inject func(b []byte) bool

	// Take copies a frame that left by the queue into b and returns its length; false when none is there now. nil: the link sends
	// nowhere.
	Take func(b []byte) (n int, ok bool)

	// Far is called while the suite waits, for far ends that have to be driven (the completions of a second AF_XDP socket, say).
	Far func()

	MinFrame int // of the frames that the link carries as they are, in bytes with the Ethernet header, at least 14; 0 means 60
	MaxFrame int // 0 means 1514

	// NeverFull says that Send takes whatever it is given.
	NeverFull bool
}

// Run runs the suite; open gives a fresh link for each test, and registers what has to be cleaned up with t.Cleanup. It does not
// close the queue, the suite does.
func Run(t *testing.T, open func(t *testing.T) Link) {
	for _, tt := range []struct {
		name            string
		receives, sends bool // what the test needs the link to do
		run             func(*harness)
	}{
		{"a queue at rest holds its chunks, gives nothing and is up", false, false, testRest},
		{"frames come in whole and in order", true, false, testReceive},
		{"frames go out whole and in order", false, true, testSend},
		{"frames received are sent on without a copy by the caller", true, true, testForward},
		{"frames are received where headers can be prepended", true, false, testHeadroom},
		{"a vector of none is no harm", true, true, testEmptyVector},
		{"bursts of every size come through", true, true, testBursts},
		{"a pool that is empty loses no chunk and recovers", true, false, testPoolEmpty},
		{"a full send ring takes fewer and recovers", false, true, testSendFull},
		{"a flush that reports nothing pending has sent everything", false, true, testFlush},
		{"a descriptor that can be waited on is readable when frames are there", true, false, testFD},
		{"stats add up", true, true, testStats},
		{"receive, send and flush allocate nothing", true, true, testAllocs},
		{"close gives back all chunks", true, true, testClose},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link := open(t)
			switch {
			case tt.receives && link.Inject == nil:
				link.Queue.Close()
				t.Skip("this link receives nothing")
			case tt.sends && link.Take == nil:
				link.Queue.Close()
				t.Skip("this link sends nowhere")
			}
			h := newHarness(t, link)
			tt.run(h)
			h.close()
		})
	}
}
