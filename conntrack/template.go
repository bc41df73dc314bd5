package conntrack

import (
	"sync/atomic"
	"time"
)

// A template says which backend a client's connections go to (persistence). It is a one-way connection of a space of its own
// ([TemplateSpace]) in state [Template], which no packet is looked up by, and lives as long as the connections that were opened under it:
// Expire gives it templateGrace more as long as there are any, as kernel IPVS does for a connection that controls others.
//
// The word of a template's reply entry, which nothing else needs, counts its children; that of a child's names its template:
//
//	template   serial 63-32 | assured 31 | children 30-0
//	child      serial 63-32 | Ref 31-0
//
// A template is assured once a connection under it was established: its client is there, and keeps it when others give way (IP_VS_CTPL_S_ASSURED).
//
// The serial is the template's alone, so a child whose template was unlinked, and its memory given to another, does not touch that.
var templateGrace = Ticks(60 * time.Second)

const (
	controlSerial   = 1<<64 - 1<<32
	controlAssured  = 1 << 31
	controlChildren = controlAssured - 1
)

// TemplateSpace is the space of templates for connections of a space: protocol numbers with bit 6 turned, which no balanced protocol has.
func TemplateSpace(space uint32) uint32 { return space ^ 0x40 }

// control is the word by which a template's children and they know each other.
func (t *Table) control(r Ref) *uint64 { return &t.common(r | refReply).word }

// children is how many connections the template of r controls.
func (t *Table) children(r Ref) uint32 {
	return uint32(atomic.LoadUint64(t.control(r)) & controlChildren)
}

// Controlled reports whether the connection of r was opened under a template.
func (t *Table) Controlled(r Ref) bool {
	return t.State(r) != Template && atomic.LoadUint64(t.control(r)) != 0
}

// adopt makes r, which nobody can find yet, a child of c.Control, if that template is alive; or a template, if c is one; or neither.
func (t *Table) adopt(r Ref, c *Conn) {
	own := uint64(0)
	switch {
	case c.Template:
		own = uint64(t.serial.Add(1)) << 32
	case c.Control != 0:
		p := t.control(c.Control)
		for word(atomic.LoadUint64(t.life(c.Control))).live() {
			x := atomic.LoadUint64(p)
			if atomic.CompareAndSwapUint64(p, x, x+1) {
				own = x&controlSerial | uint64(c.Control)
				break
			}
		}
	}
	atomic.StoreUint64(t.control(r), own)
}

// release takes a connection that is no more out of its template's account.
func (t *Table) release(r Ref) {
	own := atomic.LoadUint64(t.control(r))
	if own == 0 || word(atomic.LoadUint64(t.life(r))).state() == Template {
		return
	}
	for p := t.control(Ref(own)); ; {
		x := atomic.LoadUint64(p)
		if x>>32 != own>>32 || x&controlChildren == 0 || atomic.CompareAndSwapUint64(p, x, x-1) {
			return
		}
	}
}

// assure notes with the template of r, if r has one, that r has come to a state which says that its client is there.
func (t *Table) assure(r Ref, s State) {
	if s != Established && s != SCTPEstablished {
		return
	}
	own := atomic.LoadUint64(t.control(r))
	if own == 0 {
		return
	}
	for p := t.control(Ref(own)); ; {
		x := atomic.LoadUint64(p)
		if x>>32 != own>>32 || x&controlAssured != 0 || atomic.CompareAndSwapUint64(p, x, x|controlAssured) {
			return
		}
	}
}

// over reports whether the connection of r, whose word is w, has expired. A template with children has not.
func (t *Table) over(r Ref, w word, now Tick) bool {
	return w.expired(t.last(r), now) && (w.state() != Template || t.children(r) == 0)
}

// renew gives a template with children some more time if its own is up.
func (t *Table) renew(r Ref, w word, now Tick) {
	if w.state() != Template || !w.expired(t.last(r), now) {
		return
	}
	next := makeWord(Template, w&(wordLive|wordNoOutput|wordKind), w+generationUnit, templateGrace)
	atomic.StoreUint32(&t.common(r).seen, uint32(now))
	atomic.CompareAndSwapUint64(t.life(r), uint64(w), uint64(next)) // else a packet was faster, which gives it more
}
