// Package pcapng writes captures with what Wireshark shows beside a packet: which way it went, and a comment (draft-ietf-opsawg-pcapng).
//
// A [Writer] writes one section: the interfaces at its beginning, then packets, and perhaps what was not captured at its end. Each call is
// one write of whole blocks, so a stream that ends between two calls is a whole file.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Block types and options (sections 4 and 3.5).
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6

	byteOrderMagic = 0x1a2b3c4d
	linkEthernet   = 1

	optionEnd     = 0
	optionComment = 1

	optionApplication = 4 // of a section
	optionName        = 2 // of an interface
	optionDescription = 3
	optionResolution  = 9
	optionFlags       = 2 // of a packet
	optionDropped     = 5 // of statistics: packets lost for lack of resources
	optionDelivered   = 8

	nanoseconds = 9 // of optionResolution: 10^-9 s
	maxOption   = 1<<16 - 4
)

// Direction is which way a packet went.
type Direction uint32

const (
	Inbound  Direction = 1
	Outbound Direction = 2
)

// Interface is one that packets came and left by.
type Interface struct{ Name, Description string }

// Writer writes to one stream.
type Writer struct {
	w          io.Writer
	b          []byte
	interfaces int
}

// NewWriter begins a section with the given interfaces, whose packets keep at most snaplen bytes, 0 for all. application names who writes.
func NewWriter(w io.Writer, application string, interfaces []Interface, snaplen int) (*Writer, error) {
	x := &Writer{w: w, interfaces: len(interfaces)}
	at := x.begin(blockSection)
	x.u32(byteOrderMagic)
	x.u32(1) // version 1.0
	x.b = binary.LittleEndian.AppendUint64(x.b, ^uint64(0))
	x.option(optionApplication, []byte(application))
	x.end(at)
	for _, i := range interfaces {
		at := x.begin(blockInterface)
		x.u32(linkEthernet)
		x.u32(uint32(snaplen))
		x.option(optionName, []byte(i.Name))
		if i.Description != "" {
			x.option(optionDescription, []byte(i.Description))
		}
		x.option(optionResolution, []byte{nanoseconds})
		x.end(at)
	}
	return x, x.flush()
}

// Packet writes the first bytes of a packet of length bytes that went by the interface with the given index.
func (x *Writer) Packet(index int, at time.Time, d Direction, length int, data []byte, comment string) error {
	if index < 0 || index >= x.interfaces {
		return fmt.Errorf("pcapng: packet of interface %d of %d", index, x.interfaces)
	}
	ns := uint64(at.UnixNano())
	start := x.begin(blockPacket)
	x.u32(uint32(index))
	x.u32(uint32(ns >> 32))
	x.u32(uint32(ns))
	x.u32(uint32(len(data)))
	x.u32(uint32(max(length, len(data))))
	x.b = append(x.b, data...)
	x.pad()
	x.option(optionFlags, binary.LittleEndian.AppendUint32(nil, uint32(d)))
	if comment != "" {
		x.option(optionComment, []byte(comment))
	}
	x.end(start)
	return x.flush()
}

// Statistics ends the section with how many packets were captured, and how many were not.
func (x *Writer) Statistics(at time.Time, captured, missed uint64, comment string) error {
	if x.interfaces == 0 {
		return nil
	}
	ns := uint64(at.UnixNano())
	start := x.begin(blockStatistics)
	x.u32(0)
	x.u32(uint32(ns >> 32))
	x.u32(uint32(ns))
	x.option(optionDropped, binary.LittleEndian.AppendUint64(nil, missed))
	x.option(optionDelivered, binary.LittleEndian.AppendUint64(nil, captured))
	if comment != "" {
		x.option(optionComment, []byte(comment))
	}
	x.end(start)
	return x.flush()
}

func (x *Writer) u32(n uint32) { x.b = binary.LittleEndian.AppendUint32(x.b, n) }

func (x *Writer) pad() {
	for len(x.b)%4 != 0 {
		x.b = append(x.b, 0)
	}
}

func (x *Writer) option(code uint16, value []byte) {
	value = value[:min(len(value), maxOption)]
	x.b = binary.LittleEndian.AppendUint16(x.b, code)
	x.b = binary.LittleEndian.AppendUint16(x.b, uint16(len(value)))
	x.b = append(x.b, value...)
	x.pad()
}

// begin writes a block's head and returns where it is; end its options' end and its length, at both ends.
func (x *Writer) begin(kind uint32) int {
	at := len(x.b)
	x.u32(kind)
	x.u32(0)
	return at
}

func (x *Writer) end(at int) {
	x.u32(optionEnd)
	n := uint32(len(x.b) - at + 4)
	binary.LittleEndian.PutUint32(x.b[at+4:], n)
	x.u32(n)
}

func (x *Writer) flush() error {
	_, err := x.w.Write(x.b)
	x.b = x.b[:0]
	return err
}
