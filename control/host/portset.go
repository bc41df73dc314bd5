package host

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// PortRange is the TCP, UDP and SCTP ports From to To, both included.
type PortRange struct{ From, To uint16 }

// String is the range as a sysctl has it: "40000-40010", or "40000" for one port.
func (r PortRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// len is the number of ports in r.
func (r PortRange) len() int { return max(0, int(r.To)-int(r.From)+1) }

// portSet is a set of ports, a bit for each: what the kernel itself makes of a list of ranges.
type portSet [1 << 16 / 64]uint64

// setOf are the ports of all ranges together. Ranges may overlap; one whose end lies before its beginning is empty.
func setOf(ranges []PortRange) (s portSet) {
	for _, r := range ranges {
		s.add(r)
	}
	return s
}

func (s *portSet) add(r PortRange) {
	for p := int(r.From); p <= int(r.To); p++ {
		s[p/64] |= 1 << (p % 64)
	}
}

func (s *portSet) has(p int) bool { return s[p/64]>>(p%64)&1 != 0 }

// or are the ports of either.
func (s portSet) or(t portSet) portSet {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

// and are the ports of both.
func (s portSet) and(t portSet) portSet {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

// without are the ports of s that t has not.
func (s portSet) without(t portSet) portSet {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}

func (s *portSet) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// ranges are the ports in order, neighbours in one range: as few ranges as there can be.
func (s *portSet) ranges() (out []PortRange) {
	for p := 0; p < 1<<16; p++ {
		if !s.has(p) {
			continue
		}
		from := p
		for p+1 < 1<<16 && s.has(p+1) {
			p++
		}
		out = append(out, PortRange{uint16(from), uint16(p)})
	}
	return out
}

// String is the set as net.ipv4.ip_local_reserved_ports shows it: "8080,40000-40010".
func (s portSet) String() string { return joinRanges(s.ranges(), ",") }

func joinRanges(ranges []PortRange, by string) string {
	var b strings.Builder
	for i, r := range ranges {
		if i > 0 {
			b.WriteString(by)
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// parsePortSet reads what String writes, in any order and with spaces around.
func parsePortSet(text string) (s portSet, err error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return portSet{}, fmt.Errorf("list of ports: %q: %w", part, err)
		}
		b, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return portSet{}, fmt.Errorf("list of ports: %q: %w", part, err)
		}
		if b < a {
			return portSet{}, fmt.Errorf("list of ports: %q ends before it begins", part)
		}
		s.add(PortRange{uint16(a), uint16(b)})
	}
	return s, nil
}
