package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is where a Table lives: a shared mapping of a file or memory of the Go heap. The race detector sees only the latter.
type memory struct {
	layout
	base  []byte
	file  *os.File // nil: the heap
	pages [][pageSize / 8]uint64
	huge  huge
	lent  bool // the lock is another process' as well

	bounded  bool // the file system has room for so much and no more: nothing is touched that was not set aside before
	reserved [families]uint32
}

// newMemory returns memory for l, zeroed unless keep says that what the file has is of the same layout and is to stay. A file is locked first:
// two Tables in one would destroy each other. One that is lent comes with the lock of who lends it, which is not given back.
func newMemory(l layout, file *os.File, keep, lent bool) (*memory, error) {
	_, _, size := l.splicesAt()
	m := &memory{layout: l, file: file, lent: lent, huge: huge{kind: HugeNone}}
	if file == nil {
		// Pages as elements, for a large allocation is aligned to pages and one of numbers is not scanned. One more, in case it is not aligned.
		m.pages = make([][pageSize / 8]uint64, size/pageSize+1)
		start := unsafe.Pointer(&m.pages[0])
		skip := -uintptr(start) & (pageSize - 1)
		m.base = unsafe.Slice((*byte)(unsafe.Add(start, skip)), size)
		if unix.Madvise(m.base, unix.MADV_HUGEPAGE) == nil {
			m.huge.kind = HugeTransparent
		}
		return m, nil
	}
	fd := int(file.Fd())
	if err := lock(file); err != nil {
		return nil, err
	}
	fail := func(err error) (*memory, error) {
		if !lent {
			unix.Flock(fd, unix.LOCK_UN)
		}
		return nil, err
	}
	if err := refuse(file); err != nil {
		return fail(err)
	}
	size = mappedSize(l)
	if !keep {
		locked := fail
		fail = func(err error) (*memory, error) { // and leave no file that is long, but no table: the next New would refuse it
			return locked(errors.Join(err, file.Truncate(0)))
		}
		// Cutting to nothing first makes every page zero without writing it.
		for _, n := range []int{0, size} {
			if err := file.Truncate(int64(n)); err != nil {
				return fail(fmt.Errorf("conntrack: truncate %s to %d bytes: %w", file.Name(), n, err))
			}
		}
	}
	base, err := mapAligned(fd, size)
	if err != nil {
		return fail(fmt.Errorf("conntrack: mmap %d bytes of %s: %w", size, file.Name(), err))
	}
	m.base = base
	m.enlarge()
	if err := m.provide(); err != nil {
		return fail(errors.Join(err, unix.MunmapPtr(unsafe.Pointer(&m.base[0]), uintptr(len(m.base)))))
	}
	return m, nil
}

// mappedSize is that of l in whole huge pages.
func mappedSize(l layout) int {
	_, _, size := l.splicesAt()
	return (size + hugePage - 1) &^ (hugePage - 1)
}

// Size is how many bytes the file of a Table of o takes if all of it is used.
func (o Options) Size() int { return mappedSize(layoutOf(o.Capacity, o.Workers)) }

func lock(file *os.File) error {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("conntrack: lock %s: %w (another table lives in this file)", file.Name(), err)
	}
	return nil
}

// oldMemory maps a Table that a former process left, with a header that was checked, to be read.
func oldMemory(file *os.File, h Header) (*memory, error) {
	l := layoutOf(h.Capacity, 1)
	l.conns = h.conns
	if err := lock(file); err != nil {
		return nil, err
	}
	_, _, size := l.splicesAt()
	base, err := unix.MmapPtr(int(file.Fd()), 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		unix.Flock(int(file.Fd()), unix.LOCK_UN)
		return nil, fmt.Errorf("conntrack: mmap %d bytes of %s: %w", size, file.Name(), err)
	}
	return &memory{layout: l, file: file, base: unsafe.Slice((*byte)(base), size)}, nil
}

// shapes are the sizes and places of all that stands in the memory.
func shapes() (all []uintptr) {
	var a Entry4
	var b Entry6
	var c Splice
	return []uintptr{
		unsafe.Sizeof(a), unsafe.Offsetof(a.pair), unsafe.Offsetof(a.rest), unsafe.Offsetof(a.NewSrc), unsafe.Offsetof(a.NewDst),
		unsafe.Offsetof(a.NewPorts), unsafe.Offsetof(a.NewSpace), unsafe.Offsetof(a.common),
		unsafe.Sizeof(b), unsafe.Offsetof(b.src), unsafe.Offsetof(b.dst), unsafe.Offsetof(b.ports), unsafe.Offsetof(b.space),
		unsafe.Offsetof(b.NewSrc), unsafe.Offsetof(b.NewDst), unsafe.Offsetof(b.NewPorts), unsafe.Offsetof(b.NewSpace), unsafe.Offsetof(b.common),
		unsafe.Offsetof(a.DeltaL3), unsafe.Offsetof(a.DeltaL4), unsafe.Offsetof(a.Backend), unsafe.Offsetof(a.Flags), unsafe.Offsetof(a.seen),
		unsafe.Sizeof(c), unsafe.Offsetof(c.Cookie), unsafe.Offsetof(c.First), unsafe.Offsetof(c.Stamp), unsafe.Offsetof(c.Theirs), unsafe.Offsetof(c.seq),
		unsafe.Offsetof(c.stamp), unsafe.Offsetof(c.word), unsafe.Offsetof(c.Window), unsafe.Offsetof(c.Options),
		unsafe.Offsetof(a.word), unsafe.Offsetof(a.packets), maxProbe, uintptr(binary.NativeEndian.Uint16([]byte{1, 2})),
	}
}

// mapAligned maps size bytes of a file at an address where huge pages can begin. The kernel does so by itself only where it gives huge pages
// by itself.
func mapAligned(fd, size int) ([]byte, error) {
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(size+hugePage), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := -uintptr(room) & (hugePage - 1)
	at := unsafe.Add(room, before)
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(room, uintptr(size+hugePage)))
	}
	// What is left of the room; the parts are whole pages, for size is whole huge ones.
	if before > 0 {
		_ = unix.MunmapPtr(room, before)
	}
	_ = unix.MunmapPtr(unsafe.Add(at, size), hugePage-before)
	return unsafe.Slice((*byte)(at), size), nil
}

// refuse returns an error if file holds something that is not ours to overwrite.
func refuse(file *os.File) error {
	h, _, err := readHeader(file)
	switch {
	case errors.Is(err, ErrNoTable):
		return nil
	case err == nil && h.version != layoutVersion:
		err = h.check(0, h.boot)
	}
	if err != nil {
		return fmt.Errorf("conntrack: %s: %w", file.Name(), err)
	}
	return nil
}

// readHeader reads the first bytes of file, which must be those of a table, of whatever layout.
func readHeader(file *os.File) (h header, size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return h, 0, err
	}
	if info.Size() == 0 {
		return h, 0, ErrNoTable
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	if n, err := file.ReadAt(b, 0); n < len(b) && err != io.EOF {
		return h, 0, fmt.Errorf("header: %w", err)
	} else if n < len(b) || h.magic != magic {
		return h, 0, ErrForeign
	}
	return h, info.Size(), nil
}

func (m *memory) header() *header { return (*header)(unsafe.Pointer(&m.base[0])) }

func (m *memory) index() []uint64 {
	at, _, _, _, _, _ := m.offsets()
	return unsafe.Slice((*uint64)(unsafe.Pointer(&m.base[at])), m.slots)
}

func (m *memory) deadlines(f family) []uint32 {
	_, at, at6, _, _, _ := m.offsets()
	if f == ip6 {
		at = at6
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&m.base[at])), m.conns)
}

func (m *memory) entries4() []Entry4 {
	_, _, _, at, _, _ := m.offsets()
	return unsafe.Slice((*Entry4)(unsafe.Pointer(&m.base[at])), 2*m.conns)
}

func (m *memory) entries6() []Entry6 {
	_, _, _, _, at, _ := m.offsets()
	return unsafe.Slice((*Entry6)(unsafe.Pointer(&m.base[at])), 2*m.conns)
}

func (m *memory) splices(f family) []Splice {
	at, at6, _ := m.splicesAt()
	if f == ip6 {
		at = at6
	}
	return unsafe.Slice((*Splice)(unsafe.Pointer(&m.base[at])), m.conns)
}

func (m *memory) close() error {
	if m.file == nil {
		m.base, m.pages = nil, nil
		return nil
	}
	err := unix.MunmapPtr(unsafe.Pointer(&m.base[0]), uintptr(len(m.base)))
	m.base = nil
	if !m.lent {
		err = errors.Join(err, unix.Flock(int(m.file.Fd()), unix.LOCK_UN))
	}
	if err != nil {
		return fmt.Errorf("conntrack: unmap %s: %w", m.file.Name(), err)
	}
	return nil
}
