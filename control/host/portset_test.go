package host

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// naivePorts is a set of ports as a map.
type naivePorts map[int]bool

func naiveOf(ranges []PortRange) naivePorts {
	s := naivePorts{}
	for _, r := range ranges {
		for p := int(r.From); p <= int(r.To); p++ {
			s[p] = true
		}
	}
	return s
}

// String walks all ports and opens and closes ranges as it goes.
func (s naivePorts) String() string {
	var parts []string
	from := -1
	for p := 0; p <= 1<<16; p++ {
		switch {
		case s[p] && from < 0:
			from = p
		case !s[p] && from == p-1 && from >= 0:
			parts, from = append(parts, fmt.Sprint(from)), -1
		case !s[p] && from >= 0:
			parts, from = append(parts, fmt.Sprintf("%d-%d", from, p-1)), -1
		}
	}
	return strings.Join(parts, ",")
}

// randomRanges overlap, touch, repeat each other and stand at both ends of the numbers.
func randomRanges(r *rand.Rand) (out []PortRange) {
	for range r.IntN(12) {
		from := []int{0, 1, 65535, 40000 + r.IntN(64), r.IntN(1 << 16)}[r.IntN(5)]
		to := min(from+[]int{0, 1, r.IntN(32), r.IntN(1 << 16)}[r.IntN(4)], 1<<16-1)
		out = append(out, PortRange{uint16(from), uint16(to)})
	}
	return out
}

func TestPortSetIsWhatAMapWouldBe(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		a, b := randomRanges(r), randomRanges(r)
		sa, sb, na, nb := setOf(a), setOf(b), naiveOf(a), naiveOf(b)
		or, and, without := naivePorts{}, naivePorts{}, naivePorts{}
		for p := range 1 << 16 {
			if na[p] || nb[p] {
				or[p] = true
			}
			if na[p] && nb[p] {
				and[p] = true
			}
			if na[p] && !nb[p] {
				without[p] = true
			}
		}
		for _, tc := range []struct {
			name string
			got  portSet
			want naivePorts
		}{{"of ranges", sa, na}, {"or", sa.or(sb), or}, {"and", sa.and(sb), and}, {"without", sa.without(sb), without}} {
			if tc.got.String() != tc.want.String() || tc.got.len() != len(tc.want) {
				t.Fatalf("seed %d: %v, %v: %s is %s (%d ports), want %s (%d)", seed, a, b, tc.name, tc.got, tc.got.len(), tc.want, len(tc.want))
			}
			if back, err := parsePortSet(tc.got.String() + "\n"); err != nil || back != tc.got {
				t.Fatalf("seed %d: %s reads back as %s, %v", seed, tc.got, back, err)
			}
		}
	}
}

func TestTheHostKeepsPortsOfItsOwn(t *testing.T) {
	const around = `sysctl -w net.ipv4.ip_local_port_range="10240 32767", or give fullnat.ports a narrower range`
	linux := PortRange{32768, 60999} // the default of both
	for _, tc := range []struct {
		name    string
		want    []PortRange
		theirs  []PortRange
		own     PortRange
		grant   string
		refused string
		left    int
		cure    string
	}{
		{name: "nothing", own: linux, left: 28232, cure: `sysctl -w net.ipv4.ip_local_port_range="10240 65535", or give fullnat.ports a narrower range`},
		{name: "full NAT's default is Linux's", want: []PortRange{linux}, own: linux, refused: "32768-60999", left: 28232, cure: around},
		{name: "beside the host's", want: []PortRange{linux}, own: PortRange{10240, 32767}, grant: "32768-60999", left: 22528, cure: around},
		{name: "1024 are enough", want: []PortRange{{33792, 60999}}, own: linux, grant: "33792-60999", left: 1024,
			cure: `sysctl -w net.ipv4.ip_local_port_range="10240 33791", or give fullnat.ports a narrower range`},
		{name: "1023 are not", want: []PortRange{{33791, 60999}}, own: linux, refused: "33791-60999", left: 28232,
			cure: `sysctl -w net.ipv4.ip_local_port_range="10240 33789", or give fullnat.ports a narrower range`}, // ends of different parity
		{name: "the operator's count, too", want: []PortRange{{33792, 50000}}, theirs: []PortRange{{50001, 60000}, {60001, 60001}}, own: linux,
			grant: "33792-50000", left: 1024 + 998, cure: `sysctl -w net.ipv4.ip_local_port_range="10240 33791", or give fullnat.ports a narrower range`},
		{name: "one refused, others not", want: []PortRange{{40000, 40099}, linux, {50000, 50099}}, own: linux, grant: "40000-40099,50000-50099",
			refused: "32768-60999", left: 28232 - 200, cure: around},
		{name: "a host that has few, of which none are asked for", want: []PortRange{{40000, 40099}}, own: PortRange{61000, 61099}, grant: "40000-40099", left: 100,
			cure: `sysctl -w net.ipv4.ip_local_port_range="10240 39999", or give fullnat.ports a narrower range`},
		{name: "a host that has few, of which one is asked for", want: []PortRange{{61000, 61000}}, own: PortRange{61000, 61099}, refused: "61000", left: 100,
			cure: `sysctl -w net.ipv4.ip_local_port_range="10240 60999", or give fullnat.ports a narrower range`},
		{name: "there already", want: []PortRange{{40000, 40099}}, theirs: []PortRange{{1, 65535}}, own: linux, grant: "40000-40099", cure: "give fullnat.ports a narrower range"},
		{name: "no room anywhere", want: []PortRange{{1, 65535}}, own: linux, refused: "1-65535", left: 28232, cure: "give fullnat.ports a narrower range"},
	} {
		grant, r := share(tc.want, setOf(tc.theirs), tc.own)
		if grant.String() != tc.grant || joinRanges(r.Refused, ",") != tc.refused || r.Left != tc.left || r.cure != tc.cure || r.Range != tc.own {
			t.Errorf("%s: granted %s, refused %v, left %d, cure %s;\nwant %s, %s, %d, %s", tc.name, grant, r.Refused, r.Left, r.cure, tc.grant, tc.refused, tc.left, tc.cure)
		}
		if w := r.Warning(); (w == "") != (tc.refused == "") || tc.refused != "" && !(strings.Contains(w, tc.refused) && strings.Contains(w, tc.cure)) {
			t.Errorf("%s: the warning is %q", tc.name, w)
		}
	}
}

func FuzzParsePortSet(f *testing.F) {
	for _, s := range []string{"", "\n", "0\n", "8080,40000-40010\n", "1-65535", "5-5,5,4-6", "9-5", "65536", "-", ",", "1-2-3", "1,,2", "40000-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parsePortSet(text)
		if err != nil {
			if s != (portSet{}) {
				t.Errorf("%q: ports %s beside %v", text, s, err)
			}
			return
		}
		again, err := parsePortSet(s.String())
		if err != nil || again != s {
			t.Errorf("%q reads as %s, and that as %s, %v", text, s, again, err)
		}
	})
}
