package pcapfile

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

func TestBrokenCaptures(t *testing.T) {
	records := []record{{ns: t0, data: frameA}, {ns: t0 + 1, data: frameB}}
	plain, ng := pcap(binary.LittleEndian, true, 1, records...), pcapng(t, layers.LinkTypeEthernet, records...)
	long := pcap(binary.LittleEndian, true, 1, records...)
	binary.LittleEndian.PutUint32(long[24+16+len(frameA)+8:], 1<<30)
	for _, tt := range []struct {
		name   string
		file   []byte
		frames int
		want   string // of Clock.Err, behind the file's name; empty: none
	}{
		{"whole", plain, 2, ""},
		{"cut in the second packet", plain[:len(plain)-1], 1, "packet 2: the file ends within it (truncated capture)"},
		{"cut behind the second packet's header", plain[:len(plain)-len(frameB)], 1, "packet 2: the file ends within it (truncated capture)"},
		{"cut in the second packet's header", plain[:len(plain)-len(frameB)-3], 1, "packet 2: the file ends within it (truncated capture)"},
		{"cut between packets", plain[:24+16+len(frameA)], 1, ""},
		{"cut in the first packet", plain[:24+16+3], 0, "packet 1: the file ends within it (truncated capture)"},
		{"only a header", plain[:24], 0, ""},
		{"a length beyond all sense", long, 1, "packet 2: capture length exceeds snap length"},
		{"pcapng, whole", ng, 2, ""},
		{"pcapng, cut in the second packet", ng[:len(ng)-9], 1, "packet 2: the file ends within it (truncated capture)"},
		{"pcapng, cut in the second block's head", ng[:len(ng)-ngPacket(frameB)+5], 1, "packet 2: the file ends within it (truncated capture)"},
		{"pcapng, cut between packets", ng[:len(ng)-ngPacket(frameB)], 1, ""},
		{"gzip, cut", zipped(t, plain)[:60], -1, "packet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool, c := newPool(t, 8), NewClock()
			q := c.Queue("wan", pool)
			path := write(t, "in.pcap", tt.file)
			if err := q.In(path); err != nil {
				t.Fatal(err)
			}
			got := replay(t, c, pool, 4, q)
			if tt.frames >= 0 && len(got) != tt.frames {
				t.Errorf("%d frames given out, want %d", len(got), tt.frames)
			}
			switch err := c.Err(); {
			case tt.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), path+": "+tt.want)):
				t.Errorf("error %v, want %s: %s", err, path, tt.want)
			}
		})
	}
}

func TestWhatIsNoEthernetCaptureIsRefused(t *testing.T) {
	mixed := append(ngBigEndian(record{ns: t0, data: frameA}), ngInterface(101)...)
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"raw IP", pcap(binary.LittleEndian, false, 101), "link type 101 (Raw)"},
		{"Linux cooked", pcap(binary.BigEndian, true, 113), "link type 113 (Linux SLL)"},
		{"a type that 8 bits would take for Ethernet", pcap(binary.LittleEndian, true, 257), "link type 257 (unknown)"},
		{"pcapng, raw IP", pcapng(t, layers.LinkTypeRaw), "link type 101 (Raw)"},
		{"pcapng, 257", append(ngSection(), ngInterface(257)...), "link type 257 (unknown)"},
		{"pcapng, a unit of 10^-64 seconds", append(ngSection(), ngInterface(1, 0, 9, 0, 1, 64, 0, 0, 0, 0, 0, 0, 0)...), "the capture is corrupt"},
		{"text", []byte("this is not a capture at all, sorry"), "magic number"},
		{"short text", []byte("hello"), "not a capture: 5 bytes"},
		{"empty", nil, "not a capture: 0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, "in.pcap", tt.file)
			err := NewClock().Queue("wan", newPool(t, 8)).In(path)
			if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that names %s and says %q", err, path, tt.want)
			}
		})
	}
	t.Run("pcapng, a later interface of raw IP", func(t *testing.T) {
		pool, c := newPool(t, 8), NewClock()
		q := c.Queue("wan", pool)
		if err := q.In(write(t, "in.pcap", mixed)); err != nil {
			t.Fatal(err)
		}
		replay(t, c, pool, 4, q)
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), "link type 101 (Raw)") {
			t.Errorf("error %v, want one about link type 101", err)
		}
	})
	t.Run("no such file", func(t *testing.T) {
		err := NewClock().Queue("wan", newPool(t, 8)).In("/nonexistent/a.pcap")
		if err == nil || !strings.Contains(err.Error(), "/nonexistent/a.pcap") {
			t.Errorf("error %v, want one that names the file", err)
		}
	})
}

func TestLongAndSnappedFramesAreCounted(t *testing.T) {
	pool, c := newPool(t, 8), NewClock()
	q := c.Queue("wan", pool)
	room := 2048 - packet.Headroom
	fits, long := strings.Repeat("x", room), strings.Repeat("y", room+1)
	err := q.In(write(t, "in", pcap(binary.LittleEndian, true, 1, record{ns: t0, data: long}, record{ns: t0 + 1, data: fits},
		record{ns: t0 + 2, data: long}, record{ns: t0 + 3, data: frameA, orig: 1000}, record{ns: t0 + 4, data: long})))
	if err != nil {
		t.Fatal(err)
	}
	want := []arrival{{t0 + 1, "wan", fits}, {t0 + 3, "wan", frameA}}
	if diff := cmp.Diff(want, replay(t, c, pool, 4, q)); diff != "" || c.Err() != nil {
		t.Errorf("-want +got:\n%s%v", diff, c.Err())
	}
	if got, want := q.Counters(), (Counters{TooLong: 3, Snapped: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestAnEmptyPoolLosesFramesByName(t *testing.T) {
	pool, c := newPool(t, 1), NewClock()
	q := c.Queue("wan", pool)
	if err := q.In(write(t, "in", pcap(binary.LittleEndian, true, 1, record{ns: t0, data: frameA}, record{ns: t0, data: frameB}))); err != nil {
		t.Fatal(err)
	}
	c.Set(t0)
	d := make([]packet.Desc, 4)
	if n := q.Receive(d); n != 1 || string(pool.Bytes(d[0])) != frameA {
		t.Errorf("received %d, want the first frame alone", n)
	}
	if s := q.Stats(); s.Received != 1 || s.FillRingEmpty != 1 {
		t.Errorf("stats %+v, want 1 received, 1 lost for want of a chunk", s)
	}
	if _, ok := c.Next(); ok {
		t.Error("a lost frame comes again: the replay would not end")
	}
}
