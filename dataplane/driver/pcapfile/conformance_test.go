package pcapfile

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/driver/drivertest"
	"weir/dataplane/packet"
)

// fed is a queue whose far end writes a capture for each burst that it injects, and reads the output as it grows.
type fed struct {
	*Queue
	t       *testing.T
	pending []record
	read    *pcapgo.Reader
	from    *os.File
}

func (f *fed) Receive(d []packet.Desc) int {
	if len(f.pending) > 0 && len(d) > 0 {
		if err := f.In(write(f.t, "in.pcap", pcap(binary.LittleEndian, true, 1, f.pending...))); err != nil {
			f.t.Fatal(err)
		}
		f.pending = nil
	}
	if ns, ok := f.clock.Next(); ok {
		f.clock.Set(ns)
	}
	return f.Queue.Receive(d)
}

func (f *fed) take(b []byte) (int, bool) {
	f.out.buf.Flush()
	var err error
	if f.read == nil {
		if f.from, err = os.Open(f.out.path); err != nil {
			f.t.Fatal(err)
		}
		if f.read, err = pcapgo.NewReader(f.from); err != nil {
			f.t.Fatal(err)
		}
	}
	data, _, err := f.read.ReadPacketData()
	if err != nil && err != io.EOF {
		f.t.Fatal(err)
	}
	return copy(b, data), err == nil
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Link {
		pool := newPool(t, 512)
		f := &fed{Queue: NewClock().Queue("wan", pool), t: t}
		if err := f.Out(filepath.Join(t.TempDir(), "out.pcap")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.from.Close() })
		ns := int64(t0)
		return drivertest.Link{Queue: f, Pool: pool, NeverFull: true, Take: f.take, MinFrame: 18, MaxFrame: 2048 - packet.Headroom,
			Inject: func(b []byte) bool {
				f.pending = append(f.pending, record{ns: ns, data: string(b)})
				return true
			}}
	})
}
