package pcapfile

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// Queue is a port of a replay: what arrives at it comes from capture files, what leaves it goes into one.
//
// A frame that comes in at an instant is placed at [packet.Headroom] in its chunk. What is sent is written, at the clock's time, before
// Send returns, so the queue never holds a chunk.
type Queue struct {
	clock *Clock
	pool  *packet.Pool
	name  string
	out   *output // nil: what is sent is counted and goes nowhere
	count counters
	shut  bool
}

var _ driver.Queue = (*Queue)(nil)

type counters struct {
	received, sent, sendLost, noChunk, invalid atomic.Uint64
	tooLong, snapped, earlier                  atomic.Uint64
	closed                                     atomic.Bool
}

// Counters is what a capture has that a device has not.
type Counters struct {
	TooLong uint64 // frames longer than a chunk holds; they were skipped, not cut
	Snapped uint64 // frames that the capture holds in part; they were given out as they were captured
	Earlier uint64 // frames with an earlier timestamp than the one before; they were given out at that one's time
}

// Queue adds a port named name, without files yet.
func (c *Clock) Queue(name string, pool *packet.Pool) *Queue {
	return &Queue{clock: c, pool: pool, name: name}
}

// In adds a capture whose frames arrive at q: pcap with micro- or nanoseconds in either byte order, or pcapng, gzipped or not. A queue
// may have several. Frames of the same instant arrive in the order in which In was called for their files, over all queues of the
// clock. The error names the file; a file that breaks off later is told by [Clock.Err].
func (q *Queue) In(path string) error {
	in, err := openInput(q, path)
	if err != nil {
		return err
	}
	if err := q.clock.claim(in.f, path, false); err != nil {
		in.f.Close()
		return err
	}
	q.clock.inputs = append(q.clock.inputs, in)
	q.clock.advance(in)
	return nil
}

// Out creates the capture that takes what q sends, in pcap with nanoseconds, or empties it if it is there. It refuses a file that is an
// input or another queue's output.
func (q *Queue) Out(path string) error {
	if q.out != nil {
		return fmt.Errorf("%s: port %s writes %s already", path, q.name, q.out.path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666) // not emptied before we know that it is no input
	if err != nil {
		return err
	}
	if err := q.clock.claim(f, path, true); err != nil {
		f.Close()
		return err
	}
	if err := f.Truncate(0); err != nil {
		if st, e := f.Stat(); e != nil || st.Mode().IsRegular() { // a pipe or /dev/stdout cannot be emptied and need not be
			f.Close()
			return err
		}
	}
	q.out = newOutput(f, path)
	return nil
}

// room is the length of the longest frame that a chunk holds, in bytes.
func (q *Queue) room() int { return q.pool.ChunkSize() - packet.Headroom }

// Receive implements [driver.Queue]. It gives out frames of one instant, that of [Clock.Next], when the clock has reached it and the next
// frame of all is one of q's. A frame for which there is no chunk is lost and counted as FillRingEmpty, as it would be on a device.
func (q *Queue) Receive(d []packet.Desc) int {
	n := 0
	in := q.clock.first()
	if in == nil {
		return 0
	}
	mem, instant := q.pool.Memory(), in.at
	for n < len(d) && in != nil && in.queue == q && in.at == instant && in.at <= q.clock.now {
		if chunk, ok := q.pool.Get(); ok {
			at := chunk + packet.Headroom
			d[n] = packet.Desc{Addr: at, Len: uint32(copy(mem[at:], in.frame))}
			n++
		} else {
			q.count.noChunk.Add(1)
		}
		q.clock.advance(in)
		in = q.clock.first()
	}
	q.count.received.Add(uint64(n))
	return n
}

// Send implements [driver.Queue]. It takes all of d. Frames that cannot be written, the file system being full, say, are counted as lost;
// Close tells why.
func (q *Queue) Send(d []packet.Desc) int {
	for i := range d {
		frame := q.pool.Bytes(d[i])
		switch {
		case len(frame) == 0:
			q.count.invalid.Add(1)
			q.count.sendLost.Add(1)
		case q.out != nil && !q.out.write(q.clock.now, frame):
			q.count.sendLost.Add(1)
		default:
			q.count.sent.Add(1)
		}
		if d[i].Addr < uint64(len(q.pool.Memory())) {
			q.pool.Put(d[i].Addr)
		}
	}
	return len(d)
}

// Flush implements [driver.Queue]. Nothing is ever unfinished; files are written in large pieces, and at Close.
func (q *Queue) Flush() bool { return false }

// FD implements [driver.Queue]: a replay never waits.
func (q *Queue) FD() int { return -1 }

// Held implements [driver.Queue].
func (q *Queue) Held() int { return 0 }

// Stats implements [driver.Queue].
func (q *Queue) Stats() driver.Stats {
	c := &q.count
	return driver.Stats{Received: c.received.Load(), Sent: c.sent.Load(), SendLost: c.sendLost.Load(),
		FillRingEmpty: c.noChunk.Load(), InvalidDescriptor: c.invalid.Load(), Up: !c.closed.Load(), Mode: "pcap"}
}

// Counters may be called from any goroutine.
func (q *Queue) Counters() Counters {
	return Counters{TooLong: q.count.tooLong.Load(), Snapped: q.count.snapped.Load(), Earlier: q.count.earlier.Load()}
}

// Close implements [driver.Queue]. It drops what was not received, and writes what was sent; it returns the first error of all writing.
func (q *Queue) Close() error {
	if q.shut {
		return nil
	}
	q.shut = true
	q.count.closed.Store(true)
	for _, in := range q.clock.inputs {
		if in.queue == q {
			in.open = false
			in.f.Close() // it was only read
		}
	}
	if q.out == nil {
		return nil
	}
	return q.out.close()
}

// file is one that the clock's queues have open.
type file struct {
	info   os.FileInfo
	path   string
	output bool
}

// claim refuses a file that is written while another queue reads or writes it, under whatever name. Devices and pipes are not files
// that one could spoil.
func (c *Clock) claim(f *os.File, path string, output bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s: is a directory", path)
	}
	for _, other := range c.files {
		if (output || other.output) && info.Mode().IsRegular() && os.SameFile(info, other.info) {
			use := "an input"
			if other.output {
				use = "an output"
			}
			return fmt.Errorf("%s: is %s already, as %s", path, use, other.path)
		}
	}
	c.files = append(c.files, file{info: info, path: path, output: output})
	return nil
}

// output is a capture that is written.
type output struct {
	path string
	f    *os.File
	buf  *bufio.Writer
	pcap *pcapgo.Writer
	err  error // the first
}

func newOutput(f *os.File, path string) *output {
	o := &output{path: path, f: f, buf: bufio.NewWriterSize(f, bufferSize)}
	o.pcap = pcapgo.NewWriterNanos(o.buf)
	o.err = o.pcap.WriteFileHeader(maxCapture, layers.LinkTypeEthernet)
	return o
}

// write appends one frame. After an error it writes no more: half a record would spoil all behind it.
func (o *output) write(ns int64, frame []byte) bool {
	if o.err == nil {
		o.err = o.pcap.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(0, ns), CaptureLength: len(frame), Length: len(frame)}, frame)
	}
	return o.err == nil
}

func (o *output) close() error {
	if o.err == nil {
		o.err = o.buf.Flush()
	}
	if err := o.f.Close(); o.err == nil {
		o.err = err
	}
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", o.path, o.err)
}
