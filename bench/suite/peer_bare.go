package suite

import (
	"fmt"
	"strings"
)

func startBare(s *session, b *bed) (*running, error) {
	r, err := spawnSaying(b, "forwarding", s.Self, "forward", "d0", "d1", macG0, macG1, fmt.Sprint(s.CPUs[1]))
	if err == nil {
		r.target, r.mode = direct(), "af_xdp"
	}
	return r, err
}

// spawnSaying starts a program in dut that is ready once it has said a word.
func spawnSaying(b *bed, word string, name string, args ...string) (*running, error) {
	said := &output{}
	return spawnWatched(b.dut, said, func() bool { return strings.Contains(said.String(), word) }, nil, name, args...)
}
