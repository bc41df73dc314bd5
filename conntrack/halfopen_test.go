package conntrack

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHalfOpenStates(t *testing.T) {
	want := map[State]bool{SynRecv: true, SynAck: true, SCTPNone: true, SCTPInit1: true, SCTPInit: true}
	for s := None; s < NumStates; s++ {
		if s.HalfOpen() != want[s] {
			t.Errorf("%v (%d): HalfOpen() = %v", s, s, s.HalfOpen())
		}
	}
}

// A flood of SYNs has its quarter and no more: below it nothing gives way, beyond it one for each new one, and never one that was agreed on.
func TestHalfOpenGiveWay(t *testing.T) {
	const capacity, talking, flood = 1024, 100, 5000
	for _, c := range []struct {
		name  string
		v6    bool
		proto uint8
		open  uint8
		agree []packetOf
	}{
		{"TCP", false, tcp, syn, []packetOf{{true, syn | ack}, {false, ack}}},
		{"TCP over IPv6", true, tcp, syn, []packetOf{{true, syn | ack}, {false, ack}}},
		{"SCTP", false, sctp, chunkInit, []packetOf{{false, chunkInit}, {true, chunkInitAck}, {false, chunkCookieEcho}, {true, chunkCookieAck}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab, err := New(Options{Capacity: capacity, Workers: 1, Secret: [2]uint64{1, 2}})
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			to := DefaultTimeouts()
			for i := range talking {
				r := mustInsert(t, tab, nat(i, c.v6, c.proto), c.open, 0)
				for _, p := range c.agree {
					ref := r
					if p.reply {
						ref = r.Peer()
					}
					tab.Track(ref, p.event, &to, 0)
				}
			}
			mustInsert(t, tab, nat(talking, c.v6, udp), 0, 0)
			if tab.HalfOpen() != 0 || tab.HalfOpenCap() != capacity/4 {
				t.Fatalf("%d half-open of %d, before the first", tab.HalfOpen(), tab.HalfOpenCap())
			}
			out, ended := make([]Ended, 64), 0
			for i := range flood {
				conn := nat(1<<16+i, c.v6, c.proto)
				now := Tick(i / 100)
				r, _, o := tab.Insert(0, &conn, c.open, &to, now)
				if o != Inserted || tab.lookup(conn.Forward) != r {
					t.Fatalf("half-open connection %d: %v", i, o)
				}
				if want := min(i+1, capacity/4); tab.HalfOpen() != want {
					t.Fatalf("%d half-open after %d, want %d", tab.HalfOpen(), i+1, want)
				}
				n, _ := tab.Expire(0, now, 16, out)
				for _, e := range out[:n] {
					if !e.State.HalfOpen() || e.Proto != c.proto || e.Flags < 1<<16 {
						t.Fatalf("gave way: %+v", e)
					}
				}
				ended += n
				tab.Quiesce(0)
			}
			if want := flood - capacity/4; ended != want || tab.Evicted() != uint64(want) {
				t.Errorf("%d were reported and %d counted, want %d", ended, tab.Evicted(), want)
			}
			if tab.Len() != talking+1+capacity/4 {
				t.Errorf("%d connections are left", tab.Len())
			}
			for i := range talking {
				if conn := nat(i, c.v6, c.proto); tab.lookup(conn.Forward) == 0 {
					t.Errorf("connection %d, which was agreed on, is gone", i)
				}
			}
		})
	}
}

// A template that led to nothing but what gave way goes with it; one that others were opened under stays.
func TestTemplatesFollow(t *testing.T) {
	for _, c := range []struct {
		name     string
		children int
		want     int // connections at the end, the new one included
	}{{"only child", 1, 1}, {"one of two", 2, 3}} {
		tab, err := New(Options{Capacity: 64, Workers: 1, HalfOpen: 1, Secret: [2]uint64{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		to := DefaultTimeouts()
		tpl := template(0)
		control, _, _ := tab.Insert(0, &tpl, 0, &to, 0)
		for i := range c.children {
			conn := nat(i, false, tcp)
			conn.Control = control
			event := uint8(syn)
			if i > 0 {
				event = ack // sloppy: established at once
			}
			mustInsert(t, tab, conn, event, 0)
		}
		mustInsert(t, tab, nat(10, false, tcp), syn, 0)
		if tab.Len() != c.want || tab.HalfOpen() != 1 || tab.Evicted() != 1 {
			t.Errorf("%s: %d connections are left, %d half-open, %d gave way; want %d, 1, 1", c.name, tab.Len(), tab.HalfOpen(), tab.Evicted(), c.want)
		}
		states := map[State]int{}
		for _, e := range tab.expireAll(0, 0) {
			states[e.State]++
		}
		if want := c.children == 1; states[SynRecv] != 1 || (states[Template] == 1) != want {
			t.Errorf("%s: ended are %v", c.name, states)
		}
		tab.Quiesce(0)
		if n := len(tab.expireAll(0, ticks(time.Hour))); tab.Len() != 0 {
			t.Errorf("%s: %d of %d are left in the end", c.name, tab.Len(), n+tab.Len())
		}
		tab.Close()
	}
}

// A template that a handshake was completed under is its client's, and stays when a SYN gives way that anybody may have sent in the client's name
// (IP_VS_CTPL_S_ASSURED). A new process knows that, too.
func TestAssuredTemplatesStay(t *testing.T) {
	for _, c := range []struct {
		name  string
		proto uint8
		open  uint8
		agree []packetOf
		stays bool
	}{
		{"TCP", tcp, syn, []packetOf{{true, syn | ack}, {false, ack}, {false, rst}}, true},
		{"TCP that the server refused", tcp, syn, []packetOf{{true, rst | ack}}, false},
		{"TCP, established by its first segment", tcp, ack, []packetOf{{false, rst}}, true},
		{"SCTP", sctp, chunkInit, []packetOf{{false, chunkInit}, {true, chunkInitAck}, {false, chunkCookieEcho}, {true, chunkCookieAck}, {false, chunkAbort}}, true},
		{"SCTP that the server refused", sctp, chunkInit, []packetOf{{false, chunkInit}, {true, chunkAbort}}, false},
	} {
		for _, adopted := range []bool{false, true} {
			f, to := memfd(t), DefaultTimeouts()
			tab, err := New(Options{Capacity: 8, Workers: 1, HalfOpen: 1, File: f, Secret: [2]uint64{1, 2}})
			if err != nil {
				t.Fatal(err)
			}
			tpl := template(0)
			conn := nat(0, false, c.proto)
			conn.Control, _, _ = tab.Insert(0, &tpl, 0, &to, 0)
			r := mustInsert(t, tab, conn, c.open, 0)
			for _, p := range c.agree {
				ref := r
				if p.reply {
					ref = r.Peer()
				}
				tab.Track(ref, p.event, &to, 0)
			}
			tab.Unlink(0, r)
			if adopted {
				tab.Close()
				tab, err = New(Options{Capacity: 8, Workers: 1, HalfOpen: 1, File: f, Old: f, Keep: all, Secret: [2]uint64{1, 2}})
				if err != nil {
					t.Fatal(err)
				}
			}
			spoofed := nat(1, false, c.proto)
			spoofed.Control = tab.lookup(tpl.Forward)
			mustInsert(t, tab, spoofed, syn, 0) // SCTP begins in NONE whatever comes
			mustInsert(t, tab, nat(2, false, c.proto), syn, 0)
			if stays := tab.lookup(tpl.Forward) != 0; stays != c.stays || tab.Evicted() != 1 {
				t.Errorf("%s (adopted: %v): %d gave way, the template stays: %v, want %v", c.name, adopted, tab.Evicted(), stays, c.stays)
			}
			tab.Close()
		}
	}
}

type packetOf struct {
	reply bool
	event uint8
}

// A client in the middle of its handshake outlives leftovers: of eight drawn the longest idle gives way.
func TestTheOldGiveWay(t *testing.T) {
	const capacity = 4096
	tab, err := New(Options{Capacity: capacity, Workers: 1, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	part := tab.HalfOpenCap()
	for i := range part {
		mustInsert(t, tab, nat(i, false, tcp), syn, ticks(time.Duration(i%2)*time.Second)) // half of them are a second older
	}
	for i := range part / 4 {
		mustInsert(t, tab, nat(part+i, false, tcp), syn, ticks(2*time.Second))
	}
	old, young := 0, 0
	for i := range part {
		if conn := nat(i, false, tcp); tab.lookup(conn.Forward) == 0 {
			if i%2 == 0 {
				old++
			} else {
				young++
			}
		}
	}
	if old+young != part/4 || young > old/10 { // eight draws from half of each, later from a quarter: a few in a hundred
		t.Errorf("%d old ones gave way, and %d young ones", old, young)
	}
}

// Where half-open connections are few among many others, none is found, and then the new one is refused.
func TestCrowded(t *testing.T) {
	const others = 1 << 14
	tab, err := New(Options{Capacity: 2 * others, Workers: 1, HalfOpen: 1, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	to := DefaultTimeouts()
	for i := range others {
		mustInsert(t, tab, nat(i, false, udp), 0, 0)
	}
	mustInsert(t, tab, nat(others, false, tcp), syn, 0)
	crowded := 0
	for i := range 20 {
		c := nat(others+1+i, false, tcp)
		r, s, o := tab.Insert(0, &c, syn, &to, 0)
		switch {
		case o == Crowded && r == 0 && s == None && tab.lookup(c.Forward) == 0 && tab.lookup(c.Reply) == 0:
			crowded++
		case o != Inserted:
			t.Errorf("%v %#x %v", o, r, s)
		}
		if tab.HalfOpen() != 1 || tab.Len() != others+1 {
			t.Fatalf("%d half-open, %d in all", tab.HalfOpen(), tab.Len())
		}
		tab.Quiesce(0)
	}
	if crowded < 15 { // 128 draws from 16 thousand find it once in a hundred times
		t.Errorf("%d of 20 were refused", crowded)
	}
	if n := len(tab.expireAll(0, 0)); n != 20-crowded {
		t.Errorf("%d reported as ended, of %d that gave way; one that was refused must not be among them", n, 20-crowded)
	}
	if c := nat(1<<20, false, udp); tab.reserved(&c) != Inserted {
		t.Error("UDP is refused, too")
	}
}

func (t *Table) reserved(c *Conn) Outcome {
	to := DefaultTimeouts()
	_, _, o := t.Insert(0, c, 0, &to, 0)
	return o
}

// Workers flood, handshake and end at once: the count is right in the end, and was never far beyond the part.
func TestHalfOpenOfWorkers(t *testing.T) {
	const workers, capacity, each = 4, 1024, 20000
	tab, err := New(Options{Capacity: capacity, Workers: workers, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	var wg sync.WaitGroup
	var inserted, ended [workers]int
	var most atomic.Int64
	for w := range workers {
		wg.Go(func() {
			to := DefaultTimeouts()
			out := make([]Ended, 32)
			for i := range each {
				c := nat(w<<20+i, i%3 == 0, tcp)
				r, _, o := tab.Insert(w, &c, syn, &to, 0)
				if o == Inserted {
					inserted[w]++
					switch i % 8 {
					case 0: // answered, then closed
						tab.Track(r.Peer(), syn|ack, &to, 0)
						tab.Track(r, ack, &to, 0)
						tab.Track(r, rst, &to, 0)
						if _, ok := tab.Unlink(w, r); ok {
							ended[w]++
						}
					case 1:
						tab.Track(r, rst, &to, 0)
					}
				}
				if n := int64(tab.HalfOpen()); n > most.Load() {
					most.Store(n)
				}
				n, _ := tab.Expire(w, ticks(11*time.Second), 64, out) // of Close, not of SynRecv
				ended[w] += n
				tab.Quiesce(w)
			}
			tab.Sleep(w)
		})
	}
	wg.Wait()
	in, gone := 0, 0
	for w := range workers {
		in += inserted[w]
		gone += ended[w]
	}
	if n := int(most.Load()); n > capacity/4+workers {
		t.Errorf("%d half-open at once, the part is %d", n, capacity/4)
	}
	tab.Wake(0)
	gone += len(tab.expireAll(0, ticks(11*time.Second)))
	halfOpen := 0
	tab.Range(0, func(i *Info) bool {
		if i.State.HalfOpen() {
			halfOpen++
		}
		return true
	})
	if in-gone != tab.Len() || tab.HalfOpen() != halfOpen || tab.Evicted() == 0 {
		t.Errorf("%d inserted, %d ended, Len %d; %d half-open by Range and %d by count; %d gave way", in, gone, tab.Len(), halfOpen, tab.HalfOpen(), tab.Evicted())
	}
	gone += len(tab.expireAll(0, ticks(time.Hour)))
	if tab.Len() != 0 || tab.HalfOpen() != 0 || in != gone {
		t.Errorf("at the end %d of %d, %d half-open", tab.Len(), in-gone, tab.HalfOpen())
	}
}

// SYNs that are too few for their part of the table, from addresses that nobody has, would leave a template of each for as long as persistence lasts.
// While half of the table is free nothing differs from the kernel without drop_entry; beyond that a template that led to no handshake ends with its last
// connection.
func TestTemplatesOfNobodyDoNotFillTheTable(t *testing.T) {
	const capacity, seconds = 256, 1000
	for _, c := range []struct {
		name  string
		proto uint8
		ends  []packetOf // of those that nobody sent
	}{{"TCP, not answered", tcp, nil}, {"TCP, refused", tcp, []packetOf{{true, rst | ack}}}, {"SCTP", sctp, []packetOf{{false, chunkInit}, {false, chunkInit}}}} {
		tab, err := New(Options{Capacity: capacity, Workers: 1, Secret: [2]uint64{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		to := DefaultTimeouts()
		to[Template] = Ticks(time.Hour)
		open := func(i int, now Tick) (r Ref, k Tuple) {
			tpl := template(i)
			conn := nat(i, false, c.proto)
			var o Outcome
			if conn.Control, _, o = tab.Insert(0, &tpl, 0, &to, now); o != Inserted {
				t.Fatalf("%s: template %d: %v, %d of %d", c.name, i, o, tab.Len(), capacity)
			}
			if r, _, o = tab.Insert(0, &conn, syn, &to, now); o != Inserted {
				t.Fatalf("%s: connection %d: %v, %d of %d", c.name, i, o, tab.Len(), capacity)
			}
			return r, tpl.Forward
		}
		r, there := open(0, 0)
		agree := []packetOf{{true, syn | ack}, {false, ack}, {false, rst}}
		if c.proto == sctp {
			agree = []packetOf{{false, chunkInit}, {true, chunkInitAck}, {false, chunkCookieEcho}, {true, chunkCookieAck}, {false, chunkAbort}}
		}
		track := func(r Ref, packets []packetOf, now Tick) {
			for _, p := range packets {
				if p.reply {
					tab.Track(r.Peer(), p.event, &to, now)
				} else {
					tab.Track(r, p.event, &to, now)
				}
			}
		}
		track(r, agree, 0)
		var first Tuple
		for i := 1; i <= seconds; i++ {
			now := ticks(time.Duration(i) * time.Second)
			r, k := open(i, now)
			track(r, c.ends, now)
			tab.expireAll(0, now)
			tab.Quiesce(0)
			if i == 1 {
				first = k
			}
			if tab.Len() <= capacity/2 && tab.lookup(first) == 0 {
				t.Fatalf("%s: a template ended after %d s, with %d of %d", c.name, i, tab.Len(), capacity)
			}
			if tab.Len() > capacity/2+2*62 {
				t.Fatalf("%s: %d of %d after %d s", c.name, tab.Len(), capacity, i)
			}
		}
		if tab.lookup(there) == 0 {
			t.Errorf("%s: the template of a client who is there is gone", c.name)
		}
		if n := tab.Evicted(); n != 0 {
			t.Errorf("%s: %d gave way: the test shows nothing", c.name, n)
		}
		tab.Close()
	}
}
