package pcapfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"testing"

	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// Blocks of a big-endian pcapng file, which pcapgo does not write.
func ngBlock(kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := binary.BigEndian.AppendUint32(nil, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, uint32(len(body)+12))
}

func ngSection() []byte {
	return ngBlock(magicNG, []byte{0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
}

// ngInterface has a snap length that nobody should take memory for, and nanoseconds.
func ngInterface(link uint16, options ...byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, link)
	body = append(body, 0, 0, 0xff, 0xff, 0xff, 0xff)
	if options == nil {
		options = []byte{0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0}
	}
	return ngBlock(blockInterface, append(body, options...))
}

func ngBigEndian(records ...record) []byte {
	b := append(ngSection(), ngInterface(1)...)
	for _, r := range records {
		body := binary.BigEndian.AppendUint64([]byte{0, 0, 0, 0}, uint64(r.ns))
		body = binary.BigEndian.AppendUint32(body, uint32(len(r.data)))
		body = binary.BigEndian.AppendUint32(body, uint32(max(r.orig, len(r.data))))
		b = append(b, ngBlock(blockEnhanced, append(body, r.data...))...)
	}
	return b
}

// ngPacket is the length of the enhanced packet block that holds data.
func ngPacket(data string) int { return 32 + (len(data)+3)&^3 }

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Whatever a file holds, reading it ends, in frames that fit and in time that does not go back.
func FuzzInput(f *testing.F) {
	records := []record{{ns: t0, data: frameA}, {ns: t0 + 1, data: frameB, orig: 99}, {ns: t0 - 5, data: frameC}}
	f.Add(pcap(binary.LittleEndian, true, 1, records...))
	f.Add(pcap(binary.BigEndian, false, 1, records...))
	f.Add(pcapng(f, layers.LinkTypeEthernet, records...))
	f.Add(ngBigEndian(records...))
	f.Add(append(ngSection(), ngInterface(1, 0, 9, 0, 1, 64, 0, 0, 0, 0, 0, 0, 0)...))    // 10^-64 s, for which pcapgo divides by zero
	f.Add(append(ngBigEndian(records...), ngBlock(3, []byte("\xff\xff\xff\xffabcd"))...)) // 4 GiB
	f.Fuzz(func(t *testing.T, b []byte) {
		from, err := open(bytes.NewReader(b))
		if err != nil {
			return
		}
		q := NewClock().Queue("fuzz", newPool(t, 1))
		in := &input{queue: q, path: "fuzz", from: from, room: q.room()}
		for last := int64(0); ; last = in.at {
			if err = in.read(); err != nil || !in.open {
				break
			}
			if in.at < last || in.at < 0 {
				t.Fatalf("packet %d: time %d after %d", in.packet, in.at, last)
			}
			if len(in.frame) > 2048-packet.Headroom {
				t.Fatalf("packet %d: %d bytes", in.packet, len(in.frame))
			}
			if in.packet > len(b) {
				t.Fatalf("%d packets from %d bytes", in.packet, len(b))
			}
		}
	})
}

// FuzzBlocks compares the checking reader with none at all: it passes on what it takes as it is, snap lengths of interfaces aside.
func FuzzBlocks(f *testing.F) {
	f.Add(ngBigEndian(record{ns: 1, data: frameA}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4 || binary.BigEndian.Uint32(b) != magicNG {
			t.Skip("not pcapng")
		}
		got, err := io.ReadAll(newBlocks(b))
		if len(got) > len(b) || err == nil && len(got) != len(b) {
			t.Fatalf("passed on %d of %d bytes, error %v", len(got), len(b), err)
		}
		for i := range got {
			if got[i] != b[i] && !inSnapLength(b, i) {
				t.Fatalf("byte %d is %#x, was %#x", i, got[i], b[i])
			}
		}
	})
}

func newBlocks(b []byte) *blocks { return &blocks{r: bufio.NewReader(bytes.NewReader(b))} }

// inSnapLength walks the file to find out whether byte i lies in the snap length of an interface block.
func inSnapLength(b []byte, i int) bool {
	var order binary.ByteOrder = binary.LittleEndian
	for at := 0; at+20 <= len(b); {
		if binary.BigEndian.Uint32(b[at:]) == magicNG {
			order = binary.LittleEndian
			if binary.BigEndian.Uint32(b[at+8:]) == 0x1a2b3c4d {
				order = binary.BigEndian
			}
		}
		length := int(order.Uint32(b[at+4:]))
		if i < at+length {
			return order.Uint32(b[at:]) == blockInterface && i >= at+12 && i < at+16
		}
		at += length
	}
	return false
}
