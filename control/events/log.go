package events

import (
	"context"
	"sync"
)

// Log is a ring of the latest events. It may be used by any goroutine.
type Log struct {
	mu    sync.Mutex
	ring  []Event // of Seq s at (s-1) % cap
	last  uint64  // Seq of the latest; 0: there was none
	added chan struct{}
}

// NewLog makes a log of the latest n events.
func NewLog(n int) *Log {
	return &Log{ring: make([]Event, 0, n), added: make(chan struct{})}
}

// Add gives e its number, keeps it, and wakes those who wait for it.
func (l *Log) Add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Seq = l.last
	if len(l.ring) < cap(l.ring) {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(e.Seq-1)%uint64(cap(l.ring))] = e
	}
	close(l.added)
	l.added = make(chan struct{})
}

// Since are the events after number after, the oldest first, of which limit are given at most: the latest. Zero is all that are kept.
func (l *Log) Since(after uint64, limit int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(len(l.ring))
	from := max(after, l.last-n)
	if limit > 0 && l.last > from+uint64(limit) {
		from = l.last - uint64(limit)
	}
	all := []Event{}
	for s := from + 1; s <= l.last; s++ {
		all = append(all, l.ring[(s-1)%uint64(cap(l.ring))])
	}
	return all
}

// Last is the number of the latest event, 0 if there was none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Wait waits for an event after number after, or until ctx ends. It waits for nothing where after is a number that this log has not come to: whoever
// asks knows it from a daemon before.
func (l *Log) Wait(ctx context.Context, after uint64) {
	for {
		l.mu.Lock()
		there, added := l.last != after, l.added
		l.mu.Unlock()
		if there {
			return
		}
		select {
		case <-added:
		case <-ctx.Done():
			return
		}
	}
}
