package afxdp

import (
	"testing"

	"weir/dataplane/driver/drivertest"
)

func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name   string
		umem   UmemOptions
		o      Options
		joined bool // the first socket of the memory is another port's
		live   bool // bursts are sent as live frames
		setup  string
	}{
		{name: "native", o: Options{Mode: ModeNative}, setup: setupAsavie},
		{name: "generic", o: Options{Mode: ModeGeneric}, setup: setupAsavie},
		{name: "auto, own set-up", umem: UmemOptions{OwnSetup: true}, setup: setupOwn},
		{name: "4 KiB chunks", umem: UmemOptions{ChunkSize: 4096}, setup: setupAsavie},
		{name: "headroom, huge pages", umem: UmemOptions{Headroom: 64, HugePages: true}, setup: setupOwn},
		{name: "native, joined", o: Options{Mode: ModeNative}, joined: true, setup: setupJoined},
		{name: "native, live frames", o: Options{Mode: ModeNative}, setup: setupAsavie, live: true},
		{name: "generic, joined", o: Options{Mode: ModeGeneric}, joined: true, setup: setupJoined},
	} {
		t.Run(tt.name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Link {
				inNamespace(t)
				u := testUmem(t, tt.umem)
				if tt.joined {
					openPort(t, u, "va", Options{}).Queue.Close() // a memory that has been registered before
					other := openPort(t, u, "vb", Options{})
					other.Flush()
					lent := other.Held()
					p := openPort(t, u, "vc", tt.o)
					checkSetup(t, p, tt.setup)
					return drivertest.Link{Queue: lender{p.Queue, lent}, Pool: u.Pool(), Inject: p.far.inject, Take: p.far.take}
				}
				p := openPort(t, u, "va", tt.o)
				checkSetup(t, p, tt.setup)
				if tt.live {
					p.sendLive(t, "vap")
				}
				return drivertest.Link{Queue: p.Queue, Pool: u.Pool(), Inject: p.far.inject, Take: p.far.take}
			})
		})
	}
}

func checkSetup(t *testing.T, p *port, want string) {
	t.Helper()
	if want == setupAsavie && !canRemap() {
		want = setupOwn
	}
	if got := p.Setup(); got != want {
		t.Errorf("the socket was made by %q, want %q", got, want)
	}
}

// lender is a queue that counts as its own the chunks that an idle sibling holds, for a suite that knows of one queue only.
type lender struct {
	*Queue
	lent int
}

func (l lender) Held() int {
	if l.closed {
		return 0
	}
	return l.Queue.Held() + l.lent
}

func (l lender) Close() error {
	for _, q := range l.umem.queues {
		if q != nil && q != l.Queue {
			q.Close()
		}
	}
	return l.Queue.Close()
}
