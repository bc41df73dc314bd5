package sched

import "math"

const (
	cacheSize    = 16384              // addresses
	cacheBuckets = 1024               // IP_VS_LBLC_TAB_SIZE
	cachePeriod  = 60 * 1_000_000_000 // between two looks for what has expired, in nanoseconds
	cacheIdle    = 6 * cachePeriod    // an address not asked for so long goes when there is no room
	cacheDay     = 24 * 60 * cachePeriod
	cacheRounds  = 30 // periods, of which the last looks for what has not been asked for a day
)

// cache is what lblc and lblcr remember: for each address that clients have asked for, the destinations that have served it. It belongs to
// a State and is used under its lock. All memory is taken in newCache; links are indices, one more than the place, 0 is none.
//
// The kernel lets a table of 16384 addresses grow on and cuts it back within a minute; here an address that finds no room is
// served without being remembered, and counts as one too many when the next minute looks for idle ones.
type cache struct {
	buckets [cacheBuckets]int32
	entries []cacheEntry
	members []cacheMember

	freeEntry, freeMember   int32 // first of the free ones that have been used before
	freshEntry, freshMember int32 // how many have ever been used: memory that was never needed is never touched

	count   int32 // of entries in use
	refused int32 // addresses that found no room since the last look
	rover   int32 // bucket where the last look stopped
	round   int32
	check   int64 // time of the next look
	day     int64 // lblc_expiration, lblcr_expiration; a day but for tests
	started bool
}

// cacheEntry is one address and the set of its destinations.
type cacheEntry struct {
	addr     [16]byte
	used     int64 // when a connection last asked for it
	modified int64 // when its set last changed
	next     int32 // in the bucket
	first    int32 // member
	size     int32 // of the set
	v6       bool
}

type cacheMember struct {
	load *Load // with id, the destination: an ID alone may come to mean another one
	id   uint32
	next int32
}

// newCache makes a cache. The kernel takes memory for a set's members as they come; here as many are there as addresses, or twice as many
// for lblcr.
func newCache(k kind) *cache {
	members := cacheSize
	if k == kindLBLCR {
		members *= 2
	}
	return newCacheOf(cacheSize, members)
}

func newCacheOf(entries, members int) *cache {
	return &cache{entries: make([]cacheEntry, entries), members: make([]cacheMember, members), round: 1, day: cacheDay}
}

// keyOf is f's destination address, and its bucket.
func (c *cache) keyOf(f *Flow) (addr [16]byte, bucket *int32) {
	addr = f.Dst
	if !f.V6 {
		clear(addr[4:])
	}
	return addr, &c.buckets[hash32(fold(&addr, f.V6), 10)]
}

func (c *cache) find(f *Flow) *cacheEntry {
	addr, bucket := c.keyOf(f)
	for at := *bucket; at != 0; at = c.entries[at-1].next {
		if e := &c.entries[at-1]; e.addr == addr && e.v6 == f.V6 {
			return e
		}
	}
	return nil
}

// remember notes that d serves f's address: beside those that have before, or in their place.
func (c *cache) remember(f *Flow, d *slot, beside bool) {
	e := c.find(f)
	if e == nil {
		e = c.open(f)
	}
	if e == nil {
		c.refused = min(c.refused+1, int32(len(c.entries)))
		return
	}
	for at := e.first; at != 0; at = c.members[at-1].next {
		if c.members[at-1].load == d.load {
			return
		}
	}
	if !beside {
		for e.first != 0 {
			c.dismiss(e, e.first)
		}
		e.used = f.Now
	}
	if c.join(e, d) {
		e.modified = f.Now
	}
}

// open makes an entry, nil if there is no room. It leaves one member for it, since an entry without any would be none.
func (c *cache) open(f *Flow) *cacheEntry {
	if c.freeMember == 0 && int(c.freshMember) == len(c.members) {
		return nil
	}
	at := c.freeEntry
	switch {
	case at != 0:
		c.freeEntry = c.entries[at-1].next
	case int(c.freshEntry) < len(c.entries):
		c.freshEntry++
		at = c.freshEntry
	default:
		return nil
	}
	addr, bucket := c.keyOf(f)
	c.entries[at-1] = cacheEntry{addr: addr, v6: f.V6, used: f.Now, next: *bucket}
	*bucket = at
	c.count++
	return &c.entries[at-1]
}

// join puts d at the head of e's set.
func (c *cache) join(e *cacheEntry, d *slot) bool {
	at := c.freeMember
	switch {
	case at != 0:
		c.freeMember = c.members[at-1].next
	case int(c.freshMember) < len(c.members):
		c.freshMember++
		at = c.freshMember
	default:
		return false
	}
	c.members[at-1] = cacheMember{load: d.load, id: d.id, next: e.first}
	e.first = at
	e.size++
	return true
}

// dismiss takes member at out of e's set.
func (c *cache) dismiss(e *cacheEntry, at int32) {
	link := &e.first
	for *link != at {
		link = &c.members[*link-1].next
	}
	*link = c.members[at-1].next
	c.members[at-1] = cacheMember{next: c.freeMember}
	c.freeMember = at
	e.size--
}

// expire does what the kernel's timer has done by now, which runs once a minute. Time stands still between two connections, so that the
// looks that were due meanwhile come one after the other, each at its own time. After a long silence, cycles that could only
// repeat themselves are left out.
func (c *cache) expire(now int64) {
	if !c.started {
		c.started, c.check = true, now+cachePeriod
	}
	if due := (now - c.check) / cachePeriod; due > 3*cacheRounds {
		c.check += (due/cacheRounds - 2) * cacheRounds * cachePeriod
	}
	for ; c.check <= now; c.check += cachePeriod {
		c.look(c.check)
	}
}

// look is ip_vs_lblc_check_expire: every half an hour it drops what has not been used for a day, and otherwise, if there are too many,
// about as many as are too many of those not used for six minutes.
func (c *cache) look(now int64) {
	over := int(c.count) + int(c.refused) - len(c.entries)
	switch {
	case c.round%cacheRounds == 0:
		c.sweep(now, c.day, math.MaxInt)
		c.round = 1
	case over <= 0:
		c.round++
	default:
		c.sweep(now, cacheIdle, min(over*4/3, len(c.entries)/2))
		c.refused = 0
	}
}

// sweep drops entries not used for idle, bucket by bucket, until it has dropped goal of them.
func (c *cache) sweep(now, idle int64, goal int) {
	for range cacheBuckets {
		c.rover = (c.rover + 1) % cacheBuckets
		for link := &c.buckets[c.rover]; *link != 0; {
			at := *link
			e := &c.entries[at-1]
			if now-e.used < idle {
				link = &e.next
				continue
			}
			*link = e.next
			for e.first != 0 {
				c.dismiss(e, e.first)
			}
			e.next = c.freeEntry
			c.freeEntry = at
			c.count--
			goal--
		}
		if goal <= 0 {
			return
		}
	}
}
