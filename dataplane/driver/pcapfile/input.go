package pcapfile

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

const (
	bufferSize = 256 << 10
	// maxCapture is the longest record that is read, whatever the file's header says: the limit of libpcap (MAXIMUM_SNAPLEN).
	maxCapture = 262144

	magicNG     = 0x0a0d0d0a // section header block, the same in both byte orders
	magicMicro  = 0xa1b2c3d4
	magicNano   = 0xa1b23c4d
	magicGzip   = 0x1f8b
	headerBytes = 24 // of a pcap file
)

// errTruncated is what a capture that was cut off in the middle of a packet ends with.
var errTruncated = errors.New("the file ends within it (truncated capture)")

// source reads the next record; the bytes are valid until the next call. Both readers of pcapgo are one.
type source interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// input is one capture file and its next frame.
type input struct {
	queue *Queue
	path  string
	f     *os.File
	from  source
	room  int // the longest frame that a chunk holds, in bytes

	open   bool   // frame and at are valid
	frame  []byte // the next frame; lies in from's buffer
	at     int64  // its time in nanoseconds since 1970; never less than that of the frame before
	packet int    // its number, from 1
}

// openInput opens the capture and reads its first frame. It fails when there is no such file, when it is no capture, or when its
// link type is not Ethernet; a capture without packets is a good one.
func openInput(q *Queue, path string) (*input, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the file itself
	}
	in := &input{queue: q, path: path, f: f, room: q.room()}
	if in.from, err = open(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return in, nil
}

// open finds out what kind of capture r is.
func open(r io.Reader) (source, error) {
	br := bufio.NewReaderSize(r, bufferSize)
	if head, err := br.Peek(2); err == nil && binary.BigEndian.Uint16(head) == magicGzip {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		br = bufio.NewReaderSize(z, bufferSize)
	}
	head, err := br.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("not a capture: %d bytes, no pcap or pcapng header", len(head))
	}
	if binary.BigEndian.Uint32(head) == magicNG {
		return openNG(br)
	}
	return openPcap(br)
}

func openPcap(br *bufio.Reader) (source, error) {
	head, err := br.Peek(headerBytes)
	if err != nil {
		return nil, fmt.Errorf("not a capture: %d bytes, no pcap or pcapng header", len(head))
	}
	var order binary.ByteOrder = binary.LittleEndian
	magic := order.Uint32(head)
	if magic != magicMicro && magic != magicNano {
		order = binary.BigEndian
		if magic = order.Uint32(head); magic != magicMicro && magic != magicNano {
			return nil, fmt.Errorf("not a capture: magic number %#08x is that of neither pcap nor pcapng", magic)
		}
	}
	// pcapgo keeps 8 bits of the link type, and 257 would pass for 1. Of the 32 bits, the upper 16 tell of frame check sequences.
	if err := checkLink(uint32(order.Uint16(linkTypeField(head, order)))); err != nil {
		return nil, err
	}
	r, err := pcapgo.NewReader(br)
	if err != nil {
		return nil, err
	}
	// Not what the header says: some tools write frames longer than that, or zero for no limit, and all readers take them.
	r.SetSnaplen(maxCapture)
	return r, nil
}

// linkTypeField is the 16 bits of the link type, in the file's order.
func linkTypeField(head []byte, order binary.ByteOrder) []byte {
	if order == binary.BigEndian {
		return head[22:24]
	}
	return head[20:22]
}

func checkLink(t uint32) error {
	if t == uint32(layers.LinkTypeEthernet) {
		return nil
	}
	name := "unknown"
	if t < 256 {
		name = layers.LinkType(t).String()
	}
	return fmt.Errorf("link type %d (%s): only captures of Ethernet frames (link type 1) can be replayed", t, name)
}

// read moves on to the next frame that a chunk can hold. It returns the reason when the file breaks off; the input then has no more.
func (in *input) read() error {
	in.open = false
	for {
		b, info, err := in.next()
		if err == io.EOF {
			return nil
		}
		in.packet++
		at := in.at
		switch {
		case err != nil:
		case info.Timestamp.IsZero(): // a simple packet block bears no time: that of the packet before
		case info.Timestamp.Unix() < 0 || info.Timestamp.Unix() > math.MaxUint32:
			err = fmt.Errorf("timestamp %v: must lie in 1970 to 2106, as a pcap file has 32 bits of seconds", info.Timestamp)
		default:
			at = info.Timestamp.UnixNano()
		}
		if err != nil {
			return fmt.Errorf("%s: packet %d: %w", in.path, in.packet, err)
		}
		if at < in.at {
			at = in.at
			in.queue.count.earlier.Add(1)
		}
		in.at = at
		if len(b) > in.room {
			in.queue.count.tooLong.Add(1)
			continue
		}
		if info.Length > len(b) {
			in.queue.count.snapped.Add(1)
		}
		in.frame, in.open = b, true
		return nil
	}
}

// next is the next record, io.EOF at the end of a whole file. pcapgo trusts some lengths and exponents in pcapng options; a file that
// makes it panic is a bad file.
func (in *input) next() (b []byte, info gopacket.CaptureInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the capture is corrupt (%v)", p)
		}
	}()
	b, info, err = in.from.ZeroCopyReadPacketData()
	if err == io.ErrUnexpectedEOF || err == io.EOF && !info.Timestamp.IsZero() { // the header was there, the bytes were not
		err = errTruncated
	}
	return b, info, err
}
