package conntrack

import (
	"testing"
	"time"
	"unsafe"
)

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"an IPv4 entry is a cache line", unsafe.Sizeof(Entry4{}), 64},
		{"an IPv6 entry is two cache lines", unsafe.Sizeof(Entry6{}), 128},
		{"the common part stands at the same place", unsafe.Offsetof(Entry4{}.common), unsafe.Offsetof(Entry6{}.common)},
		{"a query is a cache line", unsafe.Sizeof(Query{}), 64},
		{"two splices are a cache line", unsafe.Sizeof(Splice{}), spliceSize},
		{"two workers share no cache line", unsafe.Sizeof(worker{}) % 128, 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
}

// Bytes that one more connection costs, with its share of the index, its deadline and its link in the free list.
func TestBytesPerConnection(t *testing.T) {
	const capacity = 1 << 20
	l := layoutOf(capacity, 8)
	index, d4, d6, e4, e6, end := l.offsets()
	per := func(from, to int) float64 { return float64(to-from) / capacity }
	shared := per(index, d4) + float64(unsafe.Sizeof(arena{}.next[0]))
	if got := shared + per(d4, d6) + per(e4, e6); got > 192 {
		t.Errorf("an IPv4 connection takes %.1f bytes, want at most 192", got)
	} else {
		t.Logf("IPv4: %.1f bytes", got)
	}
	if got := shared + per(d6, e4) + per(e6, end); got > 320 {
		t.Errorf("an IPv6 connection takes %.1f bytes, want at most 320", got)
	} else {
		t.Logf("IPv6: %.1f bytes", got)
	}
}

func TestPairsAreAligned(t *testing.T) {
	for _, capacity := range []int{1, 7, 1000} {
		tab := newTable(t, capacity, 1)
		if a := uintptr(unsafe.Pointer(&tab.v4[2])); a%128 != 0 {
			t.Errorf("capacity %d: an IPv4 connection lies at %#x, not aligned to 128", capacity, a)
		}
		if a := uintptr(unsafe.Pointer(&tab.v6[2])); a%256 != 0 {
			t.Errorf("capacity %d: an IPv6 connection lies at %#x, not aligned to 256", capacity, a)
		}
	}
}

func TestTick(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want uint32
	}{
		{-time.Second, 0}, {0, 0}, {1, 1}, {1 << tickShift, 1}, {1<<tickShift + 1, 2}, {2 * time.Second, 477}, {900 * time.Second, 214577},
		{MaxTimeout << tickShift, MaxTimeout}, {1<<63 - 1, MaxTimeout},
	} {
		if got := Ticks(c.d); got != c.want {
			t.Errorf("Ticks(%v) = %d, want %d", c.d, got, c.want)
		}
	}
	if got := TickOf(-1).since(TickOf(1 << tickShift)); got != -2 {
		t.Errorf("one tick before zero is %d ticks from one after it, want -2", got)
	}
}
