package pcapfile

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/dataplane/packet"
)

func TestOutputBearsTheClocksTimeAndIsTheSameTwice(t *testing.T) {
	in := write(t, "in.pcap", pcap(binary.BigEndian, false, 1, record{ns: t0 + 1000, data: frameA}, record{ns: t0 + 5000, data: frameB}))
	run := func() []byte {
		pool, c := newPool(t, 8), NewClock()
		q, path := c.Queue("wan", pool), filepath.Join(t.TempDir(), "out.pcap")
		if err := q.In(in); err != nil {
			t.Fatal(err)
		}
		if err := q.Out(path); err != nil {
			t.Fatal(err)
		}
		replay(t, c, pool, 4, q)
		chunk, _ := pool.Get()
		d := packet.Desc{Addr: chunk + 300, Len: uint32(len(frameC))}
		copy(pool.Bytes(d), frameC)
		c.Set(t0 + 7000 + 89) // a timer's
		q.Send([]packet.Desc{d})
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if pool.Free() != pool.Chunks() || q.Stats().Sent != 3 {
			t.Errorf("%d of %d chunks free, stats %+v", pool.Free(), pool.Chunks(), q.Stats())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := run()
	want := pcap(binary.LittleEndian, true, 1, record{ns: t0 + 1000, data: frameA}, record{ns: t0 + 5000, data: frameB}, record{ns: t0 + 7089, data: frameC})
	binary.LittleEndian.PutUint32(want[16:], maxCapture)
	if !bytes.Equal(first, want) {
		t.Errorf("wrote\n%x, want\n%x", first, want)
	}
	if !bytes.Equal(first, run()) {
		t.Error("the second run wrote other bytes")
	}
}

func TestFilesAreNotSpoiled(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.pcap"), filepath.Join(dir, "out.pcap")
	capture := pcap(binary.LittleEndian, true, 1, record{ns: t0, data: frameA})
	if err := os.WriteFile(in, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(in, filepath.Join(dir, "alias.pcap")); err != nil {
		t.Skip(err)
	}
	pool, c := newPool(t, 8), NewClock()
	wan, lan := c.Queue("wan", pool), c.Queue("lan", pool)
	if err := wan.In(in); err != nil {
		t.Fatal(err)
	}
	if err := lan.In(in); err != nil {
		t.Errorf("one file may be read at two ports: %v", err)
	}
	if err := wan.Out(filepath.Join(dir, "alias.pcap")); err == nil || !strings.Contains(err.Error(), "alias.pcap: is an input already") {
		t.Errorf("writing onto an input: %v", err)
	}
	if err := wan.Out(out); err != nil {
		t.Fatal(err)
	}
	if err := lan.Out(out); err == nil || !strings.Contains(err.Error(), "is an output already") {
		t.Errorf("two ports writing one file: %v", err)
	}
	if err := wan.Out(filepath.Join(dir, "other.pcap")); err == nil {
		t.Error("one port writes two files")
	}
	if err := lan.Out(dir); err == nil {
		t.Error("a directory was taken")
	}
	if b, err := os.ReadFile(in); err != nil || !bytes.Equal(b, capture) {
		t.Errorf("the input has changed: %v", err)
	}
	wan.Close()
	lan.Close()
}

func TestCloseTellsTheFirstWriteError(t *testing.T) {
	pool, c := newPool(t, 8), NewClock()
	q := c.Queue("wan", pool)
	if err := q.Out("/dev/full"); err != nil {
		t.Skip(err)
	}
	total := uint64(0)
	for range 1000 { // more than the buffer holds
		var d [8]packet.Desc
		for i := range d {
			chunk, _ := pool.Get()
			d[i] = packet.Desc{Addr: chunk, Len: 1500}
		}
		if n := q.Send(d[:]); n != len(d) || pool.Free() != pool.Chunks() {
			t.Fatalf("Send took %d of %d; %d of %d chunks free", n, len(d), pool.Free(), pool.Chunks())
		}
		total += uint64(len(d))
	}
	if s := q.Stats(); s.SendLost == 0 || s.Sent+s.SendLost != total {
		t.Errorf("stats %+v: want some of %d lost, the others sent", s, total)
	}
	if err := q.Close(); err == nil || !strings.Contains(err.Error(), "/dev/full: ") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Close: %v, want the file's name and its error", err)
	}
	if err := q.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
