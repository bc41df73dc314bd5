package conntrack

import "sync/atomic"

// word is the life of a connection in 64 bits, kept in its forward entry. It changes by compare-and-swap alone, so one caller makes, and
// accounts for, each transition; a packet that changes nothing only reads it.
//
//	63        32 31         12    11       10       9          8      7     0
//	| timeout  | generation   | spliced | oneWay | noOutput | live | state |
//
// timeout is in ticks and that of the state when the latest transition or change of configuration reached the connection. generation
// makes two words differ that say the same: a packet that comes when the timer is about to fire makes the timer lose by it.
type word uint64

const (
	wordState    word = 0xff
	wordLive     word = 1 << 8  // packets may use the connection; once cleared it is only being taken apart
	wordNoOutput word = 1 << 9  // the server was not seen yet and need not be: INPUT_ONLY holds (the kernel's IP_VS_CONN_F_NOOUTPUT)
	wordOneWay   word = 1 << 10 // the reply is not in the index
	wordSpliced  word = 1 << 11 // it has a Splice
	wordKind          = wordOneWay | wordSpliced

	generationUnit word = 1 << 12
	generationMask word = 0xfffff << 12
)

func makeWord(s State, flags, generation word, timeout uint32) word {
	return word(s) | flags | generation&generationMask | word(timeout)<<32
}

func (w word) state() State    { return State(w) }
func (w word) live() bool      { return w&wordLive != 0 }
func (w word) timeout() uint32 { return uint32(w >> 32) }

// expired reports whether a connection whose latest packet came at last is over.
func (w word) expired(last, now Tick) bool { return int64(now.since(last)) >= int64(w.timeout()) }

// life is r's connection's word.
func (t *Table) life(r Ref) *uint64 { return &t.common(r &^ refReply).word }

// last is the latest packet of either direction of r's connection.
func (t *Table) last(r Ref) Tick {
	a, b := Tick(atomic.LoadUint32(&t.common(r).seen)), Tick(atomic.LoadUint32(&t.common(r^refReply).seen))
	if a.since(b) < 0 {
		return b
	}
	return a
}
