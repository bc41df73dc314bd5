package dashboard

import (
	"encoding/json"
	"sync"
	"time"
)

// Source is what there is to be seen. The hub's sampler alone calls it, one call at a time.
type Source interface {
	// Take takes a sample. anew says that the last one, if any, is too old for rates.
	Take(now time.Time, anew bool)
	// Hello is what a viewer must know once.
	Hello() any
	// View is what a viewer with q sees of the latest sample.
	View(q Query) any
	// News is what has happened since News said last, nil if nothing; zero is from as long ago as is remembered.
	News(since uint64) (news any, last uint64)
}

// Hub samples a source for viewers.
type Hub struct {
	source  Source
	every   time.Duration
	viewers int // at most
	write   time.Duration

	mu     sync.Mutex
	all    map[*viewer]bool // true: it was greeted
	runs   bool             // the sampler
	closed bool
	joined chan struct{} // somebody is to be greeted
}

// Bounds of a hub.
const (
	MaxViewers = 16
	interval   = time.Second
	writeTime  = 10 * time.Second
	backlog    = 4 // messages that a viewer may be behind
)

// NewHub makes a hub for a source, which is asked only while somebody watches.
func NewHub(s Source) *Hub {
	return &Hub{source: s, every: interval, viewers: MaxViewers, write: writeTime, all: map[*viewer]bool{}, joined: make(chan struct{}, 1)}
}

// viewer is one stream.
type viewer struct {
	query Query
	out   chan []byte // closed when it is to end
}

// join adds a viewer, and starts the sampler if it is the first. It returns nil if there are as many as may be, or the hub was closed.
func (h *Hub) join(q Query) *viewer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.all) >= h.viewers {
		return nil
	}
	v := &viewer{q, make(chan []byte, backlog)}
	h.all[v] = false
	if !h.runs {
		h.runs = true
		go h.run()
		return v
	}
	select {
	case h.joined <- struct{}{}:
	default: // somebody else waits for the same
	}
	return v
}

// leave ends v's stream, if it has not ended.
func (h *Hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(v)
}

// drop ends v's stream. h.mu is held.
func (h *Hub) drop(v *viewer) {
	if _, there := h.all[v]; there {
		delete(h.all, v)
		close(v.out)
	}
}

// Close ends all streams, and admits no more.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for v := range h.all {
		h.drop(v)
	}
}

// run is the sampler. It ends when nobody watches any more, which it finds at the next tick.
func (h *Hub) run() {
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	h.source.Take(time.Now(), true)
	_, told := h.source.News(0)
	for {
		for v := range h.those(false) {
			h.greet(v)
		}
		select {
		case <-h.joined:
			continue
		case now := <-tick.C:
			if !h.watched() {
				return
			}
			h.source.Take(now, false)
		}
		var news any
		if news, told = h.source.News(told); news != nil {
			h.send(h.those(true), func(*viewer) []byte { return message("news", news) })
		}
		seen := map[Query][]byte{} // viewers with the same query see the same
		h.send(h.those(true), func(v *viewer) []byte {
			if seen[v.query] == nil {
				seen[v.query] = message("sample", h.source.View(v.query))
			}
			return seen[v.query]
		})
	}
}

// greet tells v what it must know: hello, what has happened so far, and the latest sample. What has happened since the other viewers were told last
// it is told once more with them; events have numbers.
func (h *Hub) greet(v *viewer) {
	text := message("hello", h.source.Hello())
	if news, _ := h.source.News(0); news != nil {
		text = append(text, message("news", news)...)
	}
	text = append(text, message("sample", h.source.View(v.query))...)
	h.send(map[*viewer]bool{v: true}, func(*viewer) []byte { return text })
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.all[v]; there {
		h.all[v] = true
	}
}

// those are the viewers that were greeted, or were not. What is sent to them is made without h.mu.
func (h *Hub) those(greeted bool) map[*viewer]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	some := map[*viewer]bool{}
	for v, was := range h.all {
		if was == greeted {
			some[v] = true
		}
	}
	return some
}

// watched reports whether somebody watches; if not, the sampler has ended.
func (h *Hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs = len(h.all) > 0
	return h.runs
}

// send gives each viewer its message, and drops those that are too far behind.
func (h *Hub) send(to map[*viewer]bool, text func(*viewer) []byte) {
	for v := range to {
		b := text(v)
		h.mu.Lock()
		if _, there := h.all[v]; there {
			select {
			case v.out <- b:
			default:
				h.drop(v)
			}
		}
		h.mu.Unlock()
	}
}

// message is one event of a stream. JSON has no line breaks, so its data is one line.
func message(event string, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("dashboard: " + err.Error()) // views are plain data
	}
	b := make([]byte, 0, len(text)+32)
	b = append(b, "event: "...)
	b = append(b, event...)
	b = append(b, "\ndata: "...)
	b = append(b, text...)
	return append(b, "\n\n"...)
}
