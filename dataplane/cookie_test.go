package dataplane_test

import (
	"testing"

	. "weir/dataplane"
)

// TestSipHash has the vectors of SipHash's own reference (Aumasson and Bernstein, vectors.h): key 00 01 .. 0f, message 00 01 .. of 8 and of 15 bytes.
func TestSipHash(t *testing.T) {
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	for _, c := range []struct {
		words []uint64
		want  uint64
	}{
		{[]uint64{0}, 0x726fdb47dd0e0e31}, // the empty message
		{[]uint64{0x0706050403020100, 8 << 56}, 0x93f5f5799a932462},
		{[]uint64{0x0706050403020100, 15<<56 | 0x0e0d0c0b0a0908}, 0xa129ca6149be45e5},
	} {
		if got := SipHash(k0, k1, c.words...); got != c.want {
			t.Errorf("%x: %#x, want %#x", c.words, got, c.want)
		}
	}
}
