package conntrack

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
)

const (
	magic         = 0x6b6e74632d726977 // "wir-ctnk" as little-endian bytes
	layoutVersion = 3                  // 1 and 2 were those of tables in memory without a name, which nobody can have left behind
)

// header is the first page. Magic and version stand at their places in all versions.
type header struct {
	magic    uint64
	version  uint64 // of the layout
	shape    uint64 // of the entries, see shapeOf
	capacity uint64 // connections
	conns    uint64 // entry pairs of each arena
	id       uint64 // of the table: what else was written down about its connections names it
	boot     [16]byte
	sum      uint64 // of all before

	used [families]uint32 // atomic: connections with numbers from here on were never given out
}

// shapeOf is a digest of what else must be the same for one program to read another's entries: sizes and places of the fields, what the
// numbers of the states mean, the order of bytes. A change of any is a new layout version; this finds the one that was forgotten.
func shapeOf() uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, shapes(), NumStates, strings.Join(stateNames[:], " "), wordState, wordLive, wordNoOutput, wordKind, tickShift, templateGrace, refReply, refV6)
	return h.Sum64()
}

// checksum is of the header's fields up to sum.
func (h *header) checksum() uint64 {
	f := fnv.New64a()
	fmt.Fprint(f, h.magic, h.version, h.shape, h.capacity, h.conns, h.id, h.boot)
	return f.Sum64()
}

// Reasons why the connections in a file cannot be taken over.
var (
	ErrForeign = errors.New("not a connection table")
	ErrLayout  = errors.New("table has another layout")
	ErrBoot    = errors.New("table is of a time before the machine was started: nobody knows how old its connections are")
	ErrDamaged = errors.New("header of the table is damaged")
	ErrNoTable = errors.New("there is no table")
)

// Header is what a file says of the Table in it.
type Header struct {
	ID       uint64 // names the table
	Capacity int

	conns int
}

// ReadHeader reads what file holds. The error wraps one of those above and says what the file has and what this program knows: then a Table
// can still be made of the file, but an empty one, and not of one that is no table.
func ReadHeader(file *os.File, boot [16]byte) (Header, error) {
	h, size, err := readHeader(file)
	if err == nil {
		err = h.check(size, boot)
	}
	if err != nil {
		return Header{}, fmt.Errorf("conntrack: %s: %w", file.Name(), err)
	}
	return Header{ID: h.id, Capacity: int(h.capacity), conns: int(h.conns)}, nil
}

// check reports why a table of this header, in a file of size bytes, cannot be read. A version that is older than ours gets a case here and a
// reader beside adopt's own when there is one; so far there is none.
func (h *header) check(size int64, boot [16]byte) error {
	if h.magic != magic {
		return ErrForeign
	}
	switch h.version {
	case layoutVersion:
	default:
		return fmt.Errorf("%w: version %d, this program knows version %d", ErrLayout, h.version, layoutVersion)
	}
	switch {
	case h.sum != h.checksum():
		return ErrDamaged
	case h.shape != shapeOf():
		return fmt.Errorf("%w: version %d, but of another build or machine", ErrLayout, h.version)
	case h.boot != boot:
		return ErrBoot
	case h.capacity < 1 || h.capacity > MaxCapacity || h.conns < h.capacity+1 || h.conns > h.capacity+1+(MaxWorkers+1)*spare:
		return ErrDamaged
	}
	l := layoutOf(int(h.capacity), 1)
	l.conns = int(h.conns)
	if _, _, want := l.splicesAt(); int64(want) > size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrDamaged, size, want)
	}
	return nil
}

// Layout names the layout of a Table: who has another cannot read it as it is.
func Layout() string { return fmt.Sprintf("%d-%016x", layoutVersion, shapeOf()) }
