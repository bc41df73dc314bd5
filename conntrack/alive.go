package conntrack

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A process that is still alive can hand its Table over as it is. Its workers have stopped between two vectors then, so nothing is half done: the
// index and all entries are right where they lie, and with the same secret each is found as before. What lies outside the file is
// little: the secret and a few counts, which the former process says (Alive), and which connections are free, which the deadlines
// say: a millisecond for a million. So the successor maps the file while the former one still works (Options.Beside), and Resume ends
// the waiting.

// Alive is what of a Table does not lie in its file.
type Alive struct {
	Secret  [2]uint64 `json:"secret"`
	Counts  uint64    `json:"counts"` // see counts
	Cursor  uint64    `json:"cursor"` // of the expiry scan
	Serial  uint32    `json:"serial"` // of the latest template
	Evicted uint64    `json:"evicted"`

	Ready [families]uint32 `json:"ready"` // the first connections that there is no memory for yet
}

// Secret is that of the hash: who has the same finds what is in the index.
func (t *Table) Secret() [2]uint64 { return t.secret }

// Alive says what a successor must know besides the file. No worker may be running, and none may have left orphans.
func (t *Table) Alive() Alive {
	x := Alive{Secret: t.secret, Counts: t.counts.word.Load(), Cursor: t.cursor.Load(), Serial: t.serial.Load(), Evicted: t.evicted.Load()}
	for f := range t.families {
		x.Ready[f] = t.families[f].ready.Load()
	}
	return x
}

// ErrSecret says that a Table was made for another hash than the one that it is to go on with.
var ErrSecret = errors.New("the table's index was made with another secret")

// Resume makes a Table that was made with Options.Beside one to work on: x is what the former process said, after its last store.
func (t *Table) Resume(x Alive) error {
	m := t.memory
	if x.Secret != t.secret {
		return fmt.Errorf("conntrack: %s: %w", m.file.Name(), ErrSecret)
	}
	t.counts.word.Store(x.Counts)
	t.cursor.Store(x.Cursor)
	t.serial.Store(x.Serial)
	t.evicted.Store(x.Evicted)
	for f := range families {
		a := &t.families[f]
		used := min(max(atomic.LoadUint32(a.used), 1), uint32(m.conns))
		// What the former process set aside is there, as the file is the same.
		m.reserved[f] = max(m.reserved[f], min(x.Ready[f], uint32(m.conns)), used)
		m.huge.used[f] = used
		a.fresh.Store(used)
		a.ready.Store(m.ready(f))
		for n := used - 1; n > 0; n-- {
			if a.deadlines[n] == 0 {
				a.push(&a.free, n)
			}
		}
	}
	t.adopted.Kept = t.Len()
	return nil
}

// prefault has the kernel enter what there is of the file into the page tables, so that workers need not wait for that page by page. Nothing that was
// never used is made to exist.
func (m *memory) prefault() {
	fd, size := int(m.file.Fd()), int64(len(m.base))
	for at := int64(0); at < size; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err != nil {
			return // no more, or a file system that cannot tell: its pages are huge, and few
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return
		}
		to = min((to+int64(os.Getpagesize())-1)&^(int64(os.Getpagesize())-1), size)
		if unix.Madvise(m.base[from:to], unix.MADV_POPULATE_WRITE) != nil {
			return // before Linux 5.14
		}
		at = to
	}
}
