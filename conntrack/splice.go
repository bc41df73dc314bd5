package conntrack

import "sync/atomic"

// Splice is what joins the two halves of a connection whose client was answered before its server was asked (SYN cookies, RFC 4987 section
// 3.6): each side has numbers of its own, and who forwards adds the difference. It lies beside the entries, by connection, so that who has
// none pays for it with nothing but address space.
//
// What the client said is written before the connection can be found and never after. What the server said is written once, by [Table.Answer],
// and follows from that and the server's SYN+ACK alone: should two workers get that one at once, they write the same.
type Splice struct {
	Cookie uint32 // our sequence number in the SYN+ACK that the client got
	First  uint32 // the client's, in its SYN
	Stamp  uint32 // our timestamp that the client echoed, and
	Theirs uint32 // the client's timestamp; valid if Options say so

	seq, stamp uint32 // atomic: what the server's numbers are more than ours
	word       uint32 // atomic: written last

	Window  uint16 // the client's in its latest segment before the server answered, as a SYN would say it
	Options uint16 // the caller's: what the client's SYN offered
}

// Answer is what the server's SYN+ACK made of a Splice.
type Answer struct {
	Seq, Stamp uint32 // what the server's sequence numbers and timestamps are more than what the client knows
	In, Out    int8   // how far windows are shifted, to the left if positive: those of the client, and those of the server; -15 to 15
}

const (
	spliceAnswered = 1 << 31
	spliceBias     = 16 // of the two shifts, 5 bits each
)

func (a *Answer) word() uint32 {
	return spliceAnswered | uint32(a.In+spliceBias)&31<<5 | uint32(a.Out+spliceBias)&31
}

// Spliced reports whether the connection of r has a Splice.
func (t *Table) Spliced(r Ref) bool { return word(atomic.LoadUint64(t.life(r)))&wordSpliced != 0 }

// Splice is that of r's connection, which must be Spliced. Only the exported fields may be read.
func (t *Table) Splice(r Ref) *Splice { return &t.splices[r.family()][r.number()] }

// Answer notes what the server of r's connection answered. Any worker may, at any time.
func (t *Table) Answer(r Ref, a Answer) {
	s := t.Splice(r)
	atomic.StoreUint32(&s.seq, a.Seq)
	atomic.StoreUint32(&s.stamp, a.Stamp)
	atomic.StoreUint32(&s.word, a.word())
}

// Answered is what Answer noted. It reports false if the server has not answered yet.
func (t *Table) Answered(r Ref) (a Answer, ok bool) {
	s := t.Splice(r)
	w := atomic.LoadUint32(&s.word)
	if w == 0 {
		return Answer{}, false
	}
	return Answer{
		Seq: atomic.LoadUint32(&s.seq), Stamp: atomic.LoadUint32(&s.stamp),
		In: int8(w>>5&31) - spliceBias, Out: int8(w&31) - spliceBias,
	}, true
}

// begin writes the Splice of a connection that nobody can find yet.
func (t *Table) begin(r Ref, c *Conn) {
	s := t.Splice(r)
	s.Cookie, s.First, s.Stamp, s.Theirs, s.Window, s.Options = c.Splice.Cookie, c.Splice.First, c.Splice.Stamp, c.Splice.Theirs, c.Splice.Window, c.Splice.Options
	atomic.StoreUint32(&s.word, 0)
}
