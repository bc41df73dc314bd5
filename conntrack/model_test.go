package conntrack

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is a Table as a map of tuples, without a thought for speed.
type model struct {
	capacity int
	keys     map[Tuple]*modelConn
	conns    map[*modelConn]bool
	orphans  []Ended
}

type modelConn struct {
	Conn
	state     State
	out       bool // output was seen
	last      Tick
	timeout   uint32
	in, reply uint64
}

func (m *model) alive(c *modelConn, now Tick) bool { return int32(now-c.last) < int32(c.timeout) }

func (m *model) end(c *modelConn) Ended {
	delete(m.conns, c)
	for _, k := range []Tuple{c.Forward, c.Reply} {
		if m.keys[k] == c {
			delete(m.keys, k)
		}
	}
	return Ended{c.Backend, c.Flags, c.state, c.Forward.Proto()}
}

func (m *model) insert(c Conn, flags uint8, to *Timeouts, now Tick) Outcome {
	room := len(m.conns) < m.capacity
	inTheWay := func(k Tuple) bool {
		old := m.keys[k]
		if old != nil && !m.alive(old, now) {
			m.orphans = append(m.orphans, m.end(old))
			old = nil
		}
		return old != nil
	}
	if inTheWay(c.Forward) {
		return Exists
	}
	if !c.OneWay && inTheWay(c.Reply) {
		return Clash
	}
	if !room {
		return Full
	}
	n := &modelConn{Conn: c, state: UDP, last: now}
	switch c.Forward.Proto() {
	case tcp:
		n.state = next(m.direction(n, false), flags, None)
	case sctp:
		n.state = SCTPNone
	}
	n.timeout = to[n.state]
	m.conns[n] = true
	m.keys[c.Forward] = n
	if !c.OneWay {
		m.keys[c.Reply] = n
	}
	return Inserted
}

func (m *model) direction(c *modelConn, reply bool) direction {
	switch {
	case reply:
		return output
	case c.OneWay && !c.out:
		return inputOnly
	}
	return input
}

func (m *model) track(c *modelConn, reply bool, flags uint8, to *Timeouts, now Tick) (Change, bool) {
	if !m.alive(c, now) {
		return Change{}, false
	}
	old := c.state
	switch c.Forward.Proto() {
	case tcp:
		c.state = next(m.direction(c, reply), flags, old)
	case sctp:
		c.state = sctpStep(m.direction(c, reply), flags&31, old)
	}
	if reply {
		c.out = true
		c.reply++
	} else {
		c.in++
	}
	c.last, c.timeout = now, to[c.state]
	return Change{old, c.state}, true
}

func sorted(e []Ended) []Ended {
	sort.Slice(e, func(i, j int) bool { return e[i].Flags < e[j].Flags })
	return e
}

// conns draws from few tuples, so that they meet; the serial number in Flags tells who won.
func drawConn(t *rapid.T, serial *uint32) Conn {
	v6 := rapid.Bool().Draw(t, "v6")
	proto := rapid.SampledFrom([]uint8{tcp, udp, sctp}).Draw(t, "proto")
	c := nat(rapid.IntRange(0, 7).Draw(t, "forward"), v6, proto)
	c.Reply = nat(rapid.IntRange(0, 7).Draw(t, "reply"), v6, proto).Reply
	c.OneWay = rapid.IntRange(0, 3).Draw(t, "oneWay") == 0
	*serial++
	c.Flags = *serial
	return c
}

func checkModel(t *rapid.T) {
	capacity, workers := rapid.IntRange(1, 12).Draw(t, "capacity"), 2
	tab, err := New(Options{Capacity: capacity, Workers: workers, HalfOpen: capacity})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	m := &model{capacity: capacity, keys: map[Tuple]*modelConn{}, conns: map[*modelConn]bool{}}
	to := DefaultTimeouts()
	now := Tick(rapid.Uint32().Draw(t, "start"))
	serial := uint32(0)

	lookup := func() (c *modelConn, r Ref) {
		k := drawConn(t, &serial)
		key := rapid.SampledFrom([]Tuple{k.Forward, k.Reply}).Draw(t, "key")
		c, r = m.keys[key], tab.lookup(key)
		if (c == nil) != (r == 0) {
			t.Fatalf("Lookup finds %#x where the model has %v", r, c)
		}
		if c != nil && (tab.Flags(r) != c.Flags || tab.Backend(r) != c.Backend || r.Reply() != (key != c.Forward) || tab.State(r) != c.state) {
			t.Fatalf("Lookup finds connection %d in %v, reply %v; the model has %d in %v", tab.Flags(r), tab.State(r), r.Reply(), c.Flags, c.state)
		}
		return c, r
	}
	t.Repeat(map[string]func(*rapid.T){
		"insert": func(t *rapid.T) {
			c, flags := drawConn(t, &serial), rapid.SampledFrom([]uint8{syn, ack, rst, fin | ack, 0}).Draw(t, "flags")
			r, s, got := tab.Insert(rapid.IntRange(0, workers-1).Draw(t, "worker"), &c, flags, &to, now)
			if want := m.insert(c, flags, &to, now); got != want {
				t.Fatalf("Insert: %v, the model says %v", got, want)
			}
			if got == Inserted && (s != m.keys[c.Forward].state || tab.lookup(c.Forward) != r) {
				t.Fatalf("inserted in %v as %#x, the model in %v", s, r, m.keys[c.Forward].state)
			}
		},
		"track": func(t *rapid.T) {
			c, r := lookup()
			if c == nil {
				return
			}
			if rapid.Bool().Draw(t, "peer") {
				r = r.Peer()
			}
			flags := rapid.Uint8().Draw(t, "flags")
			got, alive := tab.Track(r, flags, &to, now)
			want, wantAlive := m.track(c, r.Reply(), flags, &to, now)
			if got != want || alive != wantAlive {
				t.Fatalf("Track: %v %v, the model says %v %v", got, alive, want, wantAlive)
			}
		},
		"unlink": func(t *rapid.T) {
			if c, r := lookup(); c != nil {
				got, ok := tab.Unlink(0, r)
				if want := m.end(c); !ok || got != want {
					t.Fatalf("Unlink: %v %v, the model says %v", got, ok, want)
				}
			}
		},
		"expire": func(t *rapid.T) {
			got := tab.expireAll(rapid.IntRange(0, workers-1).Draw(t, "worker"), now)
			want := m.orphans
			m.orphans = nil
			for c := range m.conns {
				if !m.alive(c, now) {
					want = append(want, m.end(c))
				}
			}
			if fmt.Sprint(sorted(got)) != fmt.Sprint(sorted(want)) {
				t.Fatalf("Expire: %v, the model says %v", got, want)
			}
		},
		"wait": func(t *rapid.T) {
			now += ticks(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute}).Draw(t, "time"))
		},
		"reload": func(t *rapid.T) {
			to[rapid.IntRange(0, int(NumStates)-1).Draw(t, "state")] = uint32(rapid.IntRange(1, 300000).Draw(t, "timeout"))
		},
		"": func(t *rapid.T) {
			for w := range workers {
				tab.Quiesce(w)
			}
			if tab.Len() != len(m.conns) {
				t.Fatalf("Len() = %d, the model has %d", tab.Len(), len(m.conns))
			}
			halfOpen := 0
			for c := range m.conns {
				switch c.state {
				case SynRecv, SynAck, SCTPNone, SCTPInit1, SCTPInit:
					halfOpen++
				}
			}
			if tab.HalfOpen() != halfOpen {
				t.Fatalf("HalfOpen() = %d, the model has %d", tab.HalfOpen(), halfOpen)
			}
			n := 0
			tab.Range(now, func(i *Info) bool {
				n++
				c := m.keys[i.Forward]
				if c == nil || i.Flags != c.Flags || i.State != c.state || i.InPackets != c.in || i.OutPackets != c.reply {
					t.Fatalf("Range lists %+v, the model has %+v", i, c)
				}
				if want := time.Duration(c.timeout-uint32(now-c.last)) << tickShift; i.Expires != want {
					t.Fatalf("Range says %v to go, the model %v", i.Expires, want)
				}
				return true
			})
			for c := range m.conns {
				if m.alive(c, now) {
					n--
				}
			}
			if n != 0 {
				t.Fatalf("Range lists %d connections more than the model has", n)
			}
		},
	})
}

func TestModel(t *testing.T) { rapid.Check(t, checkModel) }

func FuzzModel(f *testing.F) {
	for seed := range uint64(4) { // rapid draws its operations from these bytes and wants many
		b := make([]byte, 1<<16)
		rng := rand.New(rand.NewPCG(seed, 0))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(rapid.MakeFuzz(checkModel))
}
