package bench

import "math/bits"

// sequence gives numbers from 0 to n-1, the same in every run (xorshift64).
type sequence struct{ state, n uint64 }

func random(n int) *sequence { return &sequence{88172645463325252, uint64(n)} }

func (s *sequence) next() int {
	s.state ^= s.state << 13
	s.state ^= s.state >> 7
	s.state ^= s.state << 17
	hi, _ := bits.Mul64(s.state, s.n)
	return int(hi)
}
