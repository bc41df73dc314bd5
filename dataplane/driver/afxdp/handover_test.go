package afxdp

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// passed is a descriptor as another process gets it.
func passed(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHandOver: a successor has the same memory and the same rings, in mappings of its own. What was received and not fetched, what was sent and is not
// back yet, and what arrives while nobody works, is its; each chunk is in one place; and the former sockets may be closed.
func TestHandOver(t *testing.T) {
	for _, x := range []struct {
		name string
		huge bool
	}{{"small pages", false}, {"huge pages", true}} {
		t.Run(x.name, func(t *testing.T) {
			inNamespace(t)
			former, err := NewUmem(UmemOptions{Chunks: 2048, Shared: true, HugePages: x.huge, Owners: true})
			if err != nil {
				t.Fatal(err)
			}
			a, b := openPort(t, former, "va", Options{Mode: ModeNative}), openPort(t, former, "vb", Options{Mode: ModeNative})
			// One frame goes through, so that indices are not zero; one waits in the worker; one is on its way out.
			a.far.inject(testFrame(0, 100))
			b.Send([]packet.Desc{receiveOne(t, a.Queue)})
			takeOne(t, b.Queue, b.far)
			a.far.inject(testFrame(1, 200))
			held := receiveOne(t, a.Queue)
			a.far.inject(testFrame(2, 300))
			b.Send([]packet.Desc{receiveOne(t, a.Queue)})

			file, ok := former.Share()
			if !ok {
				t.Fatal("memory that is shared is no file")
			}
			next, err := AdoptUmem(os.NewFile(uintptr(passed(t, int(file.Fd()))), "memory"), UmemOptions{Chunks: 2048, Owners: true}, former.Pages())
			if err != nil {
				t.Fatal(err)
			}
			var queues []*Queue
			for _, q := range []*Queue{a.Queue, b.Queue} {
				o, fd, err := q.Offer()
				if err != nil {
					t.Fatal(err)
				}
				said, _ := json.Marshal(o)
				if err := json.Unmarshal(said, &o); err != nil {
					t.Fatal(err)
				}
				q, err := Adopt(next, o, fd)
				if err != nil {
					t.Fatal(err)
				}
				queues = append(queues, q)
			}
			a.far.inject(testFrame(3, 400)) // the successor is there; the former works on
			got := receiveOne(t, a.Queue)
			former.pool.Put(got.Addr)
			a.Flush()
			a.far.inject(testFrame(4, 500)) // nobody works
			said, err := json.Marshal(former.Surrender())
			if err != nil {
				t.Fatal(err)
			}
			a.far.inject(testFrame(5, 600))
			var s UmemState
			if err := json.Unmarshal(said, &s); err != nil {
				t.Fatal(err)
			}
			if err := next.Resume(&s, []uint64{held.Addr}); err != nil {
				t.Fatal(err)
			}
			for _, q := range []*Queue{a.Queue, b.Queue} {
				unix.Close(q.fd) // as its process ends, and with it its mappings
				q.socket.unmap()
			}
			conserve(t, next, 1)
			if frame := next.pool.Bytes(held); !bytes.Equal(frame, testFrame(1, 200)) {
				t.Errorf("the frame that waits is %x", frame)
			}
			if queues[1].Send([]packet.Desc{held}) != 1 {
				t.Error("Send takes none")
			}
			for i, length := range []int{300, 200} {
				if out := takeOne(t, queues[1], b.far); !bytes.Equal(out, testFrame(uint32(2-i), length)) {
					t.Errorf("out comes %x", out)
				}
			}
			for i, length := range []int{500, 600} {
				d := receiveOne(t, queues[0])
				if in := next.pool.Bytes(d); !bytes.Equal(in, testFrame(uint32(4+i), length)) {
					t.Errorf("in comes %x", in)
				}
				next.pool.Put(d.Addr)
			}
			for i := range uint32(1000) { // more than a ring has
				a.far.inject(testFrame(i, 60))
				queues[1].Send([]packet.Desc{receiveOne(t, queues[0])})
				takeOne(t, queues[1], b.far)
				conserve(t, next, 0)
			}
			for _, q := range queues {
				if s := q.Stats(); s.SendLost+s.InvalidDescriptor+s.RxRingFull+s.FillRingEmpty+s.RxDropped != 0 || !s.Up {
					t.Errorf("stats %+v", s)
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			}
			if next.pool.Free() != 2048 {
				t.Errorf("%d of 2048 chunks came back", next.pool.Free())
			}
			if err := next.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHandOverRefused: what contradicts itself changes nothing.
func TestHandOverRefused(t *testing.T) {
	former := plainUmem(t, 64, false)
	q, _ := plainQueue(t, former, 16)
	good := former.Surrender()
	if q.held == 0 {
		t.Fatal("the queue holds nothing")
	}
	next := plainUmem(t, 64, false)
	plainQueue(t, next, 16)
	was := bytes.Clone(next.owner)
	for _, x := range []struct {
		name   string
		change func(*UmemState)
		held   []uint64
		says   string
	}{
		{"other chunks", func(s *UmemState) { s.Owner = s.Owner[1:] }, nil, "63 chunks"},
		{"other queues", func(s *UmemState) { s.Queues = nil }, nil, "0 queues"},
		{"a queue that there is not", func(s *UmemState) { s.Owner[60] = 2 }, nil, "queue 2 of 1"},
		{"a chunk too many", func(s *UmemState) { s.Queues[0].Held++ }, nil, "are said to be its"},
		{"more on the way out than there are", func(s *UmemState) { s.Queues[0].Sending = s.Queues[0].Held + 1 }, nil, "on their way out"},
		{"fewer than none", func(s *UmemState) { s.Queues[0].Sending = -1 }, nil, "on their way out"},
		{"a frame in a queue's chunk", func(*UmemState) {}, []uint64{uint64(bytes.IndexByte(good.Owner, 1)) << 11}, "is not the worker's"},
		{"a frame beyond the memory", func(*UmemState) {}, []uint64{64 << 11}, "is not the worker's"},
		{"two frames in a chunk", func(*UmemState) {}, []uint64{uint64(bytes.IndexByte(good.Owner, 0)) << 11, uint64(bytes.IndexByte(good.Owner, 0))<<11 + 300}, "is not the worker's"},
	} {
		s := UmemState{Owner: bytes.Clone(good.Owner), Queues: append([]QueueState{}, good.Queues...)}
		x.change(&s)
		if err := next.Resume(&s, x.held); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want an error with %q", x.name, err, x.says)
		}
		if !bytes.Equal(next.owner, was) {
			t.Errorf("%s: it was believed in part", x.name)
		}
	}
	file, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := AdoptUmem(file, UmemOptions{Chunks: 64}, PagesSmall); err == nil {
		t.Error("an empty file is taken for memory")
	}
	if _, ok := next.Share(); ok {
		t.Error("memory of this process alone is offered")
	}
}
