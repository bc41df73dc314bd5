package conntrack

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTimersAreTheKernels(t *testing.T) {
	seconds := map[State]int{None: 2, Established: 900, SynSent: 120, SynRecv: 60, FinWait: 120, TimeWait: 120, Close: 10, CloseWait: 60,
		LastAck: 30, Listen: 120, SynAck: 120, UDP: 300,
		SCTPNone: 2, SCTPInit1: 4, SCTPInit: 61, SCTPCookieSent: 61, SCTPCookieReplied: 61, SCTPCookieWait: 61, SCTPCookie: 61, SCTPCookieEchoed: 61,
		SCTPEstablished: 900, SCTPShutdownSent: 61, SCTPShutdownReceived: 61, SCTPShutdownAckSent: 61, SCTPRejected: 4, SCTPClosed: 61, Template: 300}
	to := DefaultTimeouts()
	for s := None; s < NumStates; s++ {
		if want := Ticks(time.Duration(seconds[s]) * time.Second); to[s] != want {
			t.Errorf("%v: %d ticks, want %d", s, to[s], want)
		}
	}
}

// Times are relative to the insertion. The clock begins right before it wraps, right before a signed difference does, and elsewhere.
func TestExpiry(t *testing.T) {
	type packet struct {
		at    time.Duration
		reply bool
		flags uint8
	}
	const second = time.Second
	for _, c := range []struct {
		name    string
		packets []packet
		gone    time.Duration // after the last packet
		state   State
	}{
		{"a SYN alone lives 60 s", nil, 60 * second, SynRecv},
		{"established lives 900 s", []packet{{0, true, syn | ack}, {0, false, ack}}, 900 * second, Established},
		{"a packet of the client restarts the timer", []packet{{0, false, ack}, {800 * second, false, ack}}, 900 * second, Established},
		{"a packet of the server restarts the timer", []packet{{0, false, ack}, {800 * second, true, ack}}, 900 * second, Established},
		{"RST shortens the timer", []packet{{0, false, ack}, {500 * second, true, rst}}, 10 * second, Close},
		{"FIN of the server", []packet{{0, false, ack}, {500 * second, true, fin | ack}}, 120 * second, FinWait},
		{"FIN of the client", []packet{{0, false, ack}, {500 * second, false, fin | ack}}, 60 * second, CloseWait},
		{"FINs of both", []packet{{0, false, ack}, {1 * second, true, fin | ack}, {2 * second, false, fin | ack}}, 120 * second, TimeWait},
		{"late by less than a tick of the timer's end", []packet{{0, false, ack}, {899 * second, false, ack}, {1798 * second, true, ack}}, 900 * second, Established},
	} {
		for _, start := range []Tick{0, 1, 1<<31 - 100, 1<<32 - 100, 12345678} {
			for _, scan := range []bool{false, true} { // while it lives, so that the deadline is moved up
				tab, to := newTable(t, 4, 1), DefaultTimeouts()
				conn := nat(1, false, tcp)
				r := mustInsert(t, tab, conn, syn, start)
				now := start
				for _, p := range c.packets {
					now = start + ticks(p.at)
					if scan {
						tab.expireAll(0, now-1)
					}
					ref := r
					if p.reply {
						ref = r.Peer()
					}
					if _, alive := tab.Track(ref, p.flags, &to, now); !alive {
						t.Fatalf("%s (start %d): expired before the packet at %v", c.name, start, p.at)
					}
				}
				end := now + ticks(c.gone)
				if got := tab.expireAll(0, end-1); len(got) != 0 {
					t.Errorf("%s (start %d, scan %v): expired a tick early: %v", c.name, start, scan, got)
				}
				if _, _, o := tab.Insert(0, &conn, syn, &to, end-1); o != Exists {
					t.Errorf("%s (start %d): inserting it again a tick early: %v", c.name, start, o)
				}
				want := Ended{conn.Backend, conn.Flags, c.state, tcp}
				if got := tab.expireAll(0, end); len(got) != 1 || got[0] != want {
					t.Errorf("%s (start %d, scan %v): expired %v, want %v", c.name, start, scan, got, want)
				}
			}
		}
	}
}

func TestExpiredIsAbsent(t *testing.T) {
	tab, to := newTable(t, 4, 1), DefaultTimeouts()
	c := nat(1, false, tcp)
	r := mustInsert(t, tab, c, ack, 0)
	end := ticks(900 * time.Second)
	for _, ref := range []Ref{r, r.Peer()} {
		if _, alive := tab.Track(ref, ack, &to, end); alive {
			t.Error("a packet revives an expired connection")
		}
	}
	// It stands in the way of a new one by both tuples, is ended for it, and reported once.
	n := mustInsert(t, tab, c, syn, end)
	if tab.lookup(c.Forward) != n || tab.lookup(c.Reply) != n.Peer() || tab.Len() != 1 {
		t.Errorf("the new connection is not in the old one's place: %#x %#x, Len %d", tab.lookup(c.Forward), tab.lookup(c.Reply), tab.Len())
	}
	if _, ok := tab.Unlink(0, r); ok {
		t.Error("the old connection ends twice")
	}
	if got := tab.expireAll(0, end); len(got) != 1 || got[0].State != Established {
		t.Errorf("Expire reports %v, want the old connection", got)
	}
	if got := tab.expireAll(0, end); len(got) != 0 {
		t.Errorf("and again %v", got)
	}
	if tab.lookup(c.Forward) != n {
		t.Error("the new connection went with the old one")
	}
}

// A reload's timeouts hold from the next packet on, shorter or longer.
func TestNewTimeouts(t *testing.T) {
	for _, seconds := range []int{5, 5000} {
		tab, to := newTable(t, 4, 1), DefaultTimeouts()
		r := mustInsert(t, tab, nat(1, false, udp), 0, 0)
		to[UDP] = Ticks(time.Duration(seconds) * time.Second)
		tab.Track(r, 0, &to, 10)
		end := 10 + Tick(to[UDP])
		if a, b := len(tab.expireAll(0, end-1)), len(tab.expireAll(0, end)); a != 0 || b != 1 {
			t.Errorf("timeout %d s: %d expired a tick early and %d in time", seconds, a, b)
		}
	}
}

// Slices of the scan reach every connection of both families in so many calls, however small the slice and out are.
func TestExpireIsBounded(t *testing.T) {
	for _, budget := range []int{1, 7, 64, 1000} {
		for _, room := range []int{1, 3, 64} {
			tab := newTable(t, 1000, 1)
			const conns = 300
			for i := range conns {
				mustInsert(t, tab, nat(i, i%3 == 0, udp), 0, 0)
			}
			used := int(tab.families[ip4].fresh.Load() + tab.families[ip6].fresh.Load())
			out, ended := make([]Ended, room), 0
			for range (used+budget-1)/budget + 2 {
				for left := budget; left > 0; {
					var n int
					n, left = tab.Expire(0, ticks(300*time.Second), left, out)
					ended += n
				}
			}
			if ended != conns || tab.Len() != 0 {
				t.Errorf("budget %d, room %d: %d of %d connections ended in a bounded number of calls", budget, room, ended, conns)
			}
		}
	}
}

// Packets that come when the timer is about to fire either keep the connection for a whole timeout more or find it gone.
func TestTrackAgainstExpire(t *testing.T) {
	const workers, conns, timeout = 3, 64, 3
	tab := newTable(t, conns, workers)
	to := Timeouts{UDP: timeout}
	var clock atomic.Uint32
	var promised [conns]atomic.Uint32 // the connection was promised to live until then
	var refs [conns]Ref
	for i := range refs {
		c := nat(i, false, udp)
		r, _, _ := tab.Insert(0, &c, 0, &to, 0)
		refs[i] = r
		promised[i].Store(timeout)
	}
	var wg sync.WaitGroup
	var broken, ended atomic.Int32
	for w := range workers {
		wg.Go(func() {
			out := make([]Ended, conns)
			for range 20000 {
				now := Tick(clock.Load())
				for i := range refs {
					if (i+int(now))%5 == w { // sometimes nobody tracks it for a while
						if _, alive := tab.Track(refs[i].Peer(), 0, &to, now); alive {
							promised[i].Store(uint32(now) + timeout)
						}
					}
				}
				n, _ := tab.Expire(w, now, 1<<20, out)
				ended.Add(int32(n))
				for _, e := range out[:n] {
					if p := Tick(promised[e.Flags].Load()); now.since(p) < 0 {
						broken.Add(1)
					}
				}
				if w == 0 && now < 1<<20 {
					clock.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if broken.Load() != 0 {
		t.Errorf("%d connections ended before the time that a packet had been promised", broken.Load())
	}
	if int(ended.Load())+tab.Len() != conns {
		t.Errorf("%d ended and %d live, of %d", ended.Load(), tab.Len(), conns)
	}
	if ended.Load() == 0 {
		t.Error("nothing expired: the test shows nothing")
	}
}

func TestTwoWorkersEndOne(t *testing.T) {
	for round := range 200 {
		tab := newTable(t, 1, 4)
		r := mustInsert(t, tab, nat(round, round%2 == 0, udp), 0, 0)
		var wg sync.WaitGroup
		var ended atomic.Int32
		for w := range 4 {
			wg.Go(func() {
				if w%2 == 0 {
					if _, ok := tab.Unlink(w, r); ok {
						ended.Add(1)
					}
				} else {
					ended.Add(int32(len(tab.expireAll(w, ticks(300*time.Second)))))
				}
			})
		}
		wg.Wait()
		if ended.Load() != 1 || tab.Len() != 0 {
			t.Fatalf("%d callers ended the connection, Len %d", ended.Load(), tab.Len())
		}
	}
}

// TestExpireLeavesInTime: a call whose out is nearly full leaves the rest, instead of looking at one connection after another with a locked instruction
// for each. Called until nothing is left, it has ended all.
func TestExpireLeavesInTime(t *testing.T) {
	tab := newTable(t, 1000, 1)
	for i := range 1000 {
		c, to := nat(i, false, udp), Timeouts{UDP: 1000}
		if i >= 100 && i < 131 {
			to[UDP] = 3
		}
		if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Inserted {
			t.Fatal(o)
		}
	}
	out := make([]Ended, 2*Together)
	n, left := tab.Expire(0, 10, tab.Used(), out)
	if n <= Together || n > len(out) || left < 800 {
		t.Errorf("%d ended with room for %d, and %d are left; want more than %d, and those behind them", n, len(out), left, Together)
	}
	for left > 0 {
		var more int
		more, left = tab.Expire(0, 10, left, out)
		n += more
	}
	if n != 31 {
		t.Errorf("%d ended, want 31", n)
	}
}

// A connection may be older than a signed difference of Ticks can tell, and one of its directions silent since it began: that of a server which answers
// past us, or of who only listens. It ends as every other.
func TestExpiryOfTheVeryOld(t *testing.T) {
	day := ticks(24 * time.Hour)
	for _, days := range []Tick{10, 103, 104, 105, 150, 207, 208, 209, 400} {
		for _, reply := range []bool{false, true} { // which direction goes on
			tab, to := newTable(t, 4, 1), DefaultTimeouts()
			c := nat(1, false, udp)
			r := mustInsert(t, tab, c, 0, 0)
			if reply {
				r = r.Peer()
			}
			now := Tick(0)
			for ; now < days*day; now += ticks(200 * time.Second) {
				if got := tab.expireAll(0, now); len(got) != 0 {
					t.Fatalf("expired after %d days while packets come", now/day)
				}
				if _, alive := tab.Track(r, 0, &to, now); !alive {
					t.Fatalf("no use after %d days while packets come", now/day)
				}
			}
			end := now - ticks(200*time.Second) + Tick(to[UDP])
			if a, b := len(tab.expireAll(0, end-1)), len(tab.expireAll(0, end)); a != 0 || b != 1 {
				t.Errorf("after %d days (reply: %v): %d expired a tick early and %d in time", days, reply, a, b)
			}
		}
	}
}
