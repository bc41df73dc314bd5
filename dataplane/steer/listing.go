package steer

import (
	"encoding/binary"
	"slices"
)

// entry is one of a table of the kernel's: a key, its bytes beyond the table's key size being zero, and a value.
type entry struct {
	key   [maxKey]byte
	value uint32
}

// maxKey is the size of the longest key in bytes.
const maxKey = 24

// listing is a table's entries in ascending order, no key twice. So two tables are compared, and one is changed into the other, in one walk:
// with a hundred thousand entries in maps most of a reload was spent on finding them.
type listing []entry

// compare orders entries by their keys' bytes. Three words: bytes.Compare takes three times as long, and sorting is most of laying out rules.
func (e *entry) compare(o *entry) int {
	for at := 0; at < maxKey; at += 8 {
		if a, b := binary.BigEndian.Uint64(e.key[at:]), binary.BigEndian.Uint64(o.key[at:]); a != b {
			if a < b {
				return -1
			}
			return 1
		}
	}
	return 0
}

// entryOf is an entry of these bytes, in order.
func entryOf(value uint32, parts ...[]byte) (e entry) {
	at := 0
	for _, p := range parts {
		at += copy(e.key[at:], p)
	}
	e.value = value
	return e
}

// listed sorts entries; the values of a key that stands several times are joined by or. It takes its argument over.
func listed(all []entry) listing {
	slices.SortFunc(all, func(a, b entry) int { return a.compare(&b) })
	out := all[:0]
	for i := range all {
		if n := len(out); n > 0 && out[n-1].key == all[i].key {
			out[n-1].value |= all[i].value
		} else {
			out = append(out, all[i])
		}
	}
	return out
}

// pairs calls f with every key of either: the entries that have it, nil where one has not.
func pairs(a, b listing, f func(a, b *entry)) {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = a[0].compare(&b[0])
		}
		switch {
		case order < 0:
			f(&a[0], nil)
			a = a[1:]
		case order > 0:
			f(nil, &b[0])
			b = b[1:]
		default:
			f(&a[0], &b[0])
			a, b = a[1:], b[1:]
		}
	}
}

// with is l after puts, and without is l after keys were removed.
func (l listing) with(puts listing) listing {
	out := make(listing, 0, len(l)+len(puts))
	pairs(l, puts, func(old, put *entry) {
		if put != nil {
			old = put
		}
		out = append(out, *old)
	})
	return out
}

func (l listing) without(keys listing) listing {
	out := make(listing, 0, len(l))
	pairs(l, keys, func(old, key *entry) {
		if old != nil && key == nil {
			out = append(out, *old)
		}
	})
	return out
}
