package pcapfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/packet"
)

func newPool(t testing.TB, chunks int) *packet.Pool {
	t.Helper()
	p, err := packet.NewPool(make([]byte, chunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// record is one packet of a capture.
type record struct {
	ns   int64
	data string
	orig int // the original length; 0: that of data
}

// pcap writes a capture with our own few lines, so that all four kinds of file are there to be read.
func pcap(order byteOrder, nano bool, link uint32, records ...record) []byte {
	magic, unit := uint32(magicMicro), int64(1000)
	if nano {
		magic, unit = magicNano, 1
	}
	u32 := func(b []byte, v ...uint32) []byte {
		for _, v := range v {
			b = order.AppendUint32(b, v)
		}
		return b
	}
	b := u32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	b = u32(b, 0, 0, 65535, link)
	for _, r := range records {
		orig := max(r.orig, len(r.data))
		b = u32(b, uint32(r.ns/1e9), uint32(r.ns%1e9/unit), uint32(len(r.data)), uint32(orig))
		b = append(b, r.data...)
	}
	return b
}

// byteOrder is both halves of binary.ByteOrder.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// pcapng writes a capture with nanoseconds by pcapgo.
func pcapng(t testing.TB, link layers.LinkType, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{LinkType: link, TimestampResolution: 9, SnapLength: 0}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, r.ns), CaptureLength: len(r.data), Length: max(r.orig, len(r.data))}
		if err := w.WritePacket(info, []byte(r.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// arrival is a frame as a queue gave it out.
type arrival struct {
	NS   int64
	Port string
	Data string
}

// replay runs the loop that the package's comment shows, asks the queues in the order given, and forwards all to the first one.
func replay(t *testing.T, c *Clock, pool *packet.Pool, vector int, queues ...*Queue) (got []arrival) {
	t.Helper()
	d := make([]packet.Desc, vector)
	for {
		ns, ok := c.Next()
		if !ok {
			return got
		}
		if ns < c.Now() {
			t.Fatalf("time went back from %d to %d", c.Now(), ns)
		}
		if len(got) > 100000 {
			t.Fatal("the replay does not end")
		}
		c.Set(ns)
		for _, q := range queues {
			n := q.Receive(d)
			for _, desc := range d[:n] {
				if desc.Addr%2048 != packet.Headroom {
					t.Errorf("a frame lies at %d of its chunk, want %d", desc.Addr%2048, packet.Headroom)
				}
				got = append(got, arrival{ns, q.name, string(pool.Bytes(desc))})
			}
			queues[0].Send(d[:n])
		}
	}
}

const (
	frameA = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5A"
	frameB = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5BB"
	frameC = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5CCC"
	t0     = 1700000000_000000000
)

func TestEveryKindOfCaptureIsRead(t *testing.T) {
	records := []record{{ns: t0 + 1000, data: frameA}, {ns: t0 + 2000, data: frameB}}
	for _, tt := range []struct {
		name string
		file []byte
	}{
		{"pcap, microseconds, little-endian", pcap(binary.LittleEndian, false, 1, records...)},
		{"pcap, microseconds, big-endian", pcap(binary.BigEndian, false, 1, records...)},
		{"pcap, nanoseconds, little-endian", pcap(binary.LittleEndian, true, 1, records...)},
		{"pcap, nanoseconds, big-endian", pcap(binary.BigEndian, true, 1, records...)},
		{"pcap that tells of a frame check sequence's length", pcap(binary.LittleEndian, true, 1|0x4000_0000, records...)},
		{"pcapng", pcapng(t, layers.LinkTypeEthernet, records...)},
		{"pcapng, big-endian", ngBigEndian(records...)},
		{"gzipped pcap", zipped(t, pcap(binary.LittleEndian, true, 1, records...))},
		{"gzipped pcapng", zipped(t, pcapng(t, layers.LinkTypeEthernet, records...))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool, c := newPool(t, 8), NewClock()
			q := c.Queue("wan", pool)
			if err := q.In(write(t, "in", tt.file)); err != nil {
				t.Fatal(err)
			}
			want := []arrival{{t0 + 1000, "wan", frameA}, {t0 + 2000, "wan", frameB}}
			if diff := cmp.Diff(want, replay(t, c, pool, 4, q)); diff != "" || c.Err() != nil {
				t.Errorf("-want +got:\n%s%v", diff, c.Err())
			}
		})
	}
}

func TestInputsAreMergedByTime(t *testing.T) {
	at := func(ns int64, data string) record { return record{ns: t0 + ns, data: data} }
	type files []struct {
		port    string
		records []record
	}
	for _, tt := range []struct {
		name    string
		files   files
		want    []arrival
		earlier uint64
	}{
		{"by timestamp", files{{"wan", []record{at(1, frameA), at(3, frameC)}}, {"lan", []record{at(2, frameB)}}},
			[]arrival{{1, "wan", frameA}, {2, "lan", frameB}, {3, "wan", frameC}}, 0},
		{"equal ones in the order of the inputs", files{{"lan", []record{at(1, frameB)}}, {"wan", []record{at(1, frameA)}}},
			[]arrival{{1, "lan", frameB}, {1, "wan", frameA}}, 0},
		{"not in that of the ports", files{{"wan", []record{at(1, frameA)}}, {"lan", []record{at(1, frameB)}}},
			[]arrival{{1, "wan", frameA}, {1, "lan", frameB}}, 0},
		{"all of one input before the next at one instant",
			files{{"wan", []record{at(1, frameA), at(1, frameB), at(1, frameC)}}, {"lan", []record{at(1, frameA), at(2, frameB)}}},
			[]arrival{{1, "wan", frameA}, {1, "wan", frameB}, {1, "wan", frameC}, {1, "lan", frameA}, {2, "lan", frameB}}, 0},
		{"several files at one port, another's between", files{{"wan", []record{at(1, frameA)}}, {"lan", []record{at(1, frameB)}}, {"wan", []record{at(1, frameC)}}},
			[]arrival{{1, "wan", frameA}, {1, "lan", frameB}, {1, "wan", frameC}}, 0},
		{"an earlier time is that of the frame before", files{{"wan", []record{at(5, frameA), at(2, frameB), at(6, frameC)}}, {"lan", []record{at(3, frameA)}}},
			[]arrival{{3, "lan", frameA}, {5, "wan", frameA}, {5, "wan", frameB}, {6, "wan", frameC}}, 1},
		{"a capture without packets", files{{"wan", nil}, {"lan", []record{at(1, frameA)}}}, []arrival{{1, "lan", frameA}}, 0},
	} {
		for _, vector := range []int{1, 2, 256} {
			for _, swap := range []bool{false, true} { // the order in which the worker asks its ports must not matter
				t.Run(fmt.Sprintf("%s, vector %d, ports swapped %v", tt.name, vector, swap), func(t *testing.T) {
					pool, c := newPool(t, 512), NewClock()
					wan, lan := c.Queue("wan", pool), c.Queue("lan", pool)
					for _, f := range tt.files {
						q := wan
						if f.port == "lan" {
							q = lan
						}
						if err := q.In(write(t, "in", pcap(binary.LittleEndian, true, 1, f.records...))); err != nil {
							t.Fatal(err)
						}
					}
					queues := []*Queue{wan, lan}
					if swap {
						queues = []*Queue{lan, wan}
					}
					want := append([]arrival(nil), tt.want...)
					for i := range want {
						want[i].NS += t0
					}
					if diff := cmp.Diff(want, replay(t, c, pool, vector, queues...)); diff != "" || c.Err() != nil {
						t.Errorf("-want +got:\n%s%v", diff, c.Err())
					}
					if n := wan.Counters().Earlier + lan.Counters().Earlier; n != tt.earlier {
						t.Errorf("%d frames counted as earlier, want %d", n, tt.earlier)
					}
				})
			}
		}
	}
}

func TestReceiveGivesOutNothingBeforeItsTime(t *testing.T) {
	pool, c := newPool(t, 8), NewClock()
	q := c.Queue("wan", pool)
	if err := q.In(write(t, "in", pcap(binary.LittleEndian, true, 1, record{ns: t0, data: frameA}, record{ns: t0 + 1, data: frameB}))); err != nil {
		t.Fatal(err)
	}
	d := make([]packet.Desc, 8)
	for _, step := range []struct {
		set  int64
		want int
	}{{t0 - 1, 0}, {t0, 1}, {t0, 0}, {0, 0}, {t0 + 1, 1}, {t0 + 9, 0}} {
		c.Set(step.set)
		if n := q.Receive(d); n != step.want {
			t.Errorf("at %d: received %d, want %d", step.set-t0, n, step.want)
		}
	}
	if c.Now() != t0+9 {
		t.Errorf("the clock stands at %d, want %d", c.Now()-t0, 9)
	}
}
