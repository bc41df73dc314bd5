package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a frame size and how often it occurs.
type Size struct {
	Bytes  int `json:"bytes"` // with the frame check sequence, as RFC 2544 counts
	Weight int `json:"weight"`
}

// Mix is the sizes of a stream's frames.
type Mix []Size

// IMIX is the simple mix that is in use everywhere (RFC 6985 names it by example): 28:16:4 of 64, 594 and 1518 bytes, 361.8 on average.
var IMIX = Mix{{64, 28}, {594, 16}, {1518, 4}}

const (
	maxSize     = 3500 // what AF_XDP takes without multi-buffer
	maxSchedule = 256  // frames until a mix repeats
)

// ParseMix reads "64", "imix", or "64:28,594:16,1518:4".
func ParseMix(s string) (Mix, error) {
	if s == "imix" {
		return IMIX, nil
	}
	var m Mix
	for _, part := range strings.Split(s, ",") {
		size, weight, weighted := strings.Cut(part, ":")
		if !weighted {
			weight = "1"
		}
		n, err := strconv.Atoi(size)
		w, err2 := strconv.Atoi(weight)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("frame size %q: must be BYTES, BYTES:WEIGHT,... or imix", s)
		}
		m = append(m, Size{n, w})
	}
	return m, m.check(64)
}

// check refuses sizes below least or that no driver takes.
func (m Mix) check(least int) error {
	all := 0
	for _, s := range m {
		if s.Bytes < max(least, 64) || s.Bytes > maxSize {
			return fmt.Errorf("frame size %d: must be %d (headers and stamp) to %d", s.Bytes, max(least, 64), maxSize)
		}
		if s.Bytes%2 != 0 {
			return fmt.Errorf("frame size %d: must be even, so that stamps lie on words of the checksum", s.Bytes)
		}
		if s.Weight < 1 {
			return fmt.Errorf("frame size %d: weight %d must be 1 or more", s.Bytes, s.Weight)
		}
		if all += s.Weight; all > maxSchedule {
			return fmt.Errorf("frame sizes: the weights add up to more than %d", maxSchedule)
		}
	}
	return nil
}

// largest is the longest frame, without its check sequence.
func (m Mix) largest() int {
	n := 0
	for _, s := range m {
		n = max(n, s.Bytes-fcs)
	}
	return n
}

// Average is the mean frame size in bytes.
func (m Mix) Average() float64 {
	bytes, all := 0, 0
	for _, s := range m {
		bytes += s.Bytes * s.Weight
		all += s.Weight
	}
	return float64(bytes) / float64(all)
}

// schedule is the order of the sizes: indices into m, each as often as its weight says and as evenly as can be (smooth weighted round
// robin), so that a short run has the mix, too.
func (m Mix) schedule() []uint8 {
	credit := make([]int, len(m))
	all := 0
	for _, s := range m {
		all += s.Weight
	}
	order := make([]uint8, all)
	for i := range order {
		best := 0
		for j, s := range m {
			if credit[j] += s.Weight; credit[j] > credit[best] {
				best = j
			}
		}
		credit[best] -= all
		order[i] = uint8(best)
	}
	return order
}

func (m Mix) String() string {
	var parts []string
	for _, s := range m {
		if len(m) == 1 {
			return strconv.Itoa(s.Bytes)
		}
		parts = append(parts, fmt.Sprintf("%d:%d", s.Bytes, s.Weight))
	}
	return strings.Join(parts, ",")
}
