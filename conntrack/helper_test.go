package conntrack

import (
	"testing"
	"time"
)

// The network of the golden data: clients 198.18.128.0/17 and 2001:db8:c::/48, VIPs 198.18.9.9 and 2001:db8:9::9, servers behind.
const (
	vip4    = 198<<24 | 18<<16 | 9<<8 | 9
	server4 = 198<<24 | 18<<16 | 1<<8 | 10
	client4 = 198<<24 | 18<<16 | 128<<8
)

var (
	vip6    = Addr{0x20010db800090000, 9}
	server6 = Addr{0x20010db800010000, 0x10}
)

const (
	fin = 1 << iota
	syn
	rst
	_
	ack

	tcp = 6
	udp = 17
)

// nat is the i-th of many NAT connections, each from a client address and port of its own.
func nat(i int, v6 bool, proto uint8) Conn {
	port, backend := uint32(i*40503)&0xffff, uint32(i%7)
	client, vip, server := Addr{Lo: client4 + uint64(i)}, Addr{Lo: vip4}, Addr{Lo: server4 + uint64(backend)}
	if v6 {
		client, vip, server = Addr{0x20010db8000c0000, uint64(i)}, vip6, Addr{server6.Hi, server6.Lo + uint64(backend)}
	}
	return Conn{
		Forward:   Tuple{client, vip, port<<16 | 80, uint32(proto), v6},
		ForwardTo: Tuple{client, server, port<<16 | 8000, uint32(proto), v6},
		Reply:     Tuple{server, client, 8000<<16 | port, uint32(proto), v6},
		ReplyTo:   Tuple{vip, client, 80<<16 | port, uint32(proto), v6},
		Backend:   backend,
		Flags:     uint32(i),
	}
}

func newTable(tb testing.TB, capacity, workers int) *Table {
	tb.Helper()
	t, err := New(Options{Capacity: capacity, Workers: workers, HalfOpen: capacity, Secret: [2]uint64{1, 2}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	return t
}

func (t *Table) lookup(k Tuple) Ref {
	q := [1]Query{{Tuple: k}}
	t.Lookup(q[:])
	return q[0].Ref
}

func mustInsert(tb testing.TB, t *Table, c Conn, flags uint8, now Tick) Ref {
	tb.Helper()
	to := DefaultTimeouts()
	r, _, o := t.Insert(0, &c, flags, &to, now)
	if o != Inserted {
		tb.Fatalf("Insert: %v", o)
	}
	return r
}

// expireAll ends everything that is over by now and returns it.
func (t *Table) expireAll(w int, now Tick) (all []Ended) {
	var out [16]Ended
	for {
		n, left := t.Expire(w, now, 1<<30, out[:])
		all = append(all, out[:n]...)
		if left == 0 {
			return all
		}
	}
}

func ticks(d time.Duration) Tick { return Tick(Ticks(d)) }
