package config

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// TestNearest gives what people type and what they mean.
func TestNearest(t *testing.T) {
	for _, x := range []struct {
		typed   string
		choices []string
		want    string
	}{
		{"wcl", Schedulers, "wlc"},
		{"wlcc", Schedulers, "wlc"},
		{"RR", Schedulers, "rr"},
		{"lbclr", Schedulers, "lblcr"},
		{"roundrobin", Schedulers, ""},
		{"", Schedulers, ""},
		{"epoll_level", Waits, "epoll-level"},
		{"af-packet", Drivers, "af_packet"},
		{"xdp", Drivers, ""},
		{"serivces", rootTable.keys(), "services"},
		{"adresses", portTable.keys(), "addresses"},
		{"upper_treshhold", backendTable.keys(), "upper_threshold"},
	} {
		if got := nearest(x.typed, x.choices); got != x.want {
			t.Errorf("nearest(%q) = %q, want %q", x.typed, got, x.want)
		}
	}
}

// naiveDistance is distance as its definition reads.
func naiveDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	i, j := len(a)-1, len(b)-1
	d := min(naiveDistance(a[:i], b)+1, naiveDistance(a, b[:j])+1)
	if a[i] == b[j] {
		d = min(d, naiveDistance(a[:i], b[:j]))
	} else {
		d = min(d, naiveDistance(a[:i], b[:j])+1)
	}
	if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
		d = min(d, naiveDistance(a[:i-1], b[:j-1])+1)
	}
	return d
}

func TestDistanceAgreesWithTwin(t *testing.T) {
	word := rapid.StringOfN(rapid.SampledFrom([]rune("abc")), 0, 6, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b, limit := word.Draw(t, "a"), word.Draw(t, "b"), rapid.IntRange(0, 8).Draw(t, "limit")
		if got, want := distance(a, b, limit), min(naiveDistance(a, b), limit); got != want {
			t.Errorf("distance(%q, %q, %d) = %d, want %d", a, b, limit, got, want)
		}
	})
}

// TestNumber compares with strconv wherever that is as strict.
func TestNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.SampledFrom([]rune("-+0129_x")), 0, 6, -1).Draw(t, "s")
		got, ok := number(s)
		want, err := strconv.ParseInt(s, 10, 64)
		strict := err == nil && strconv.FormatInt(want, 10) == s
		if s == "-0" {
			strict = true
		}
		if ok != strict || ok && got != want {
			t.Errorf("number(%q) = %d, %t", s, got, ok)
		}
	})
	if n, ok := number("99999999999999999999999999"); !ok || n < 1<<58 {
		t.Errorf("a number beyond 64 bits is %d, %t", n, ok)
	}
}

// TestNumbersAreTheInverseOfListing writes a set as the kernel would and reads it again.
func TestNumbersAreTheInverseOfListing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 1, 20, rapid.ID).Draw(t, "set")
		slices.Sort(set)
		d := &decoder{config: new(Config)}
		var got []int
		d.numbers(value{node: scalarNode(listing(set))}, &got, 30)
		if !slices.Equal(got, set) || len(d.diags) > 0 {
			t.Errorf("%q gives %v, want %v: %v", listing(set), got, set, d.diags)
		}
	})
}

func scalarNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: 1, Column: 1}
}

// TestShort writes durations as one would, and time agrees that they are the same.
func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", 10 * time.Minute: "10m", 744 * time.Hour: "744h",
		90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 100 * time.Minute: "1h40m"} {
		got := short(d)
		if back, err := time.ParseDuration(got); got != want || back != d || err != nil {
			t.Errorf("short(%v) = %s, want %s (%v)", d, got, want, err)
		}
	}
}
