package sched

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// service makes plans of one service from strings as "A3 B1": a letter for each destination, the list's head first, and its weight. A
// destination written "A3!" is overloaded.
type service struct {
	t          testing.TB
	loads      [26]Load
	state      State
	generation uint64
}

func (s *service) plan(scheduler, dests string) *Plan {
	s.generation++
	var out []Dest
	for d := range strings.FieldsSeq(dests) {
		var name byte
		var weight int32
		if _, err := fmt.Sscanf(d, "%c%d", &name, &weight); err != nil {
			s.t.Fatalf("%q: %v", d, err)
		}
		l := &s.loads[name-'A']
		if over := strings.HasSuffix(d, "!"); over != l.Overloaded() {
			if over {
				l.Bind(false, 1, 0)
			} else {
				l.Unbind(false, 1, 0)
			}
		}
		out = append(out, Dest{Load: l, ID: uint32(name), Weight: weight})
	}
	p, err := New(scheduler, Options{}, s.generation, out)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// next has p choose n times and returns the letters, - for none.
func (s *service) next(p *Plan, n int) string {
	out := ""
	for range n {
		if i := foretold(s.t, p, &s.state, &Flow{}); i >= 0 {
			out += string(rune(p.dests[i].id))
		} else {
			out += "-"
		}
	}
	return out
}

func TestOrderOfChoice(t *testing.T) {
	tests := []struct {
		name      string
		scheduler string
		steps     []string // destinations, then what is chosen of them; a service without edits has one pair
	}{
		{"rr ignores weights", "rr", []string{"A1 B9 C2", "ABCABCA"}},
		{"rr passes weight 0 and overload", "rr", []string{"A1 B0 C1! D1", "ADAD"}},
		{"rr without a usable destination", "rr", []string{"A0 B1!", "--"}},
		{"rr without any", "rr", []string{"", "--"}},
		{"rr keeps its place over an edit of weights", "rr", []string{"A1 B1 C1", "AB", "A5 B5 C5", "CAB"}},
		{"rr keeps its place when another comes before it", "rr", []string{"A1 B1 C1", "AB", "D1 A1 B1 C1", "CDAB"}},
		{"rr falls back to the one before when its own goes", "rr", []string{"A1 B1 C1", "AB", "A1 C1", "CAC"}},
		{"rr starts over when the first goes from under it", "rr", []string{"A1 B1 C1", "A", "B1 C1", "BCB"}},
		{"rr falls back over all that are gone at once", "rr", []string{"A1 B1 C1 D1 E1", "ABCD", "A1 E1", "EAE"}},
		{"rr starts over when all are new", "rr", []string{"A1 B1 C1", "AB", "D1 E1", "DED"}},
		{"rr keeps its place through a time without any", "rr", []string{"A1 B1", "A", "A0 B0", "--", "A1 B1", "BA"}},
		{"wrr from a new service goes level by level, first 1", "wrr", []string{"A3 B1", "ABAAABAA"}},
		{"wrr by the greatest common divisor", "wrr", []string{"A20 B10", "ABAABA"}},
		{"wrr passes the overloaded", "wrr", []string{"A300! B1", "BBBB"}},
		{"wrr without a usable destination", "wrr", []string{"A0 B0", "--"}},
		{"wrr with all overloaded, then one free", "wrr", []string{"A3! B1!", "--", "A3! B1", "BB"}},
		{"wrr starts with the head after an edit, at the level it had", "wrr", []string{"A3 B1", "ABA", "A3 B2", "AABABA"}},
		{"lc by connections alone", "lc", []string{"A1 B9 C2", "AAA"}}, // nothing is bound here
		{"wlc without connections takes the first", "wlc", []string{"A1 B9", "AA"}},
		{"sed without connections takes the heaviest, the first of equals", "sed", []string{"A1 B9 C9", "BB"}},
		{"nq without connections takes the first", "nq", []string{"A0 B1 C9", "BB"}},
		{"fo takes the heaviest, the first of equals", "fo", []string{"A1 B9 C9", "BB", "A1 B9! C9", "C", "A1 B0 C9!", "A", "A0 B0 C9!", "-"}},
		{"ovf takes the heaviest that is not full", "ovf", []string{"A1 B9 C9", "BB", "A1 B9! C9", "C"}},
		{"dh without any", "dh", []string{"", "-", "A0", "-", "A1!", "-", "A1", "A"}},
		{"mh without any, and with none that ever had a weight", "mh", []string{"", "-", "A0", "-", "A1!", "-", "A1", "A"}},
		{"twos without any", "twos", []string{"", "-", "A0 B1!", "-", "A1 B0", "AA"}},
		{"lblc and lblcr are wlc at first", "lblc", []string{"", "-", "A0 B1!", "-", "A1 B9", "AA"}},
		{"lblcr alike", "lblcr", []string{"", "-", "A0 B1!", "-", "A1 B9", "AA"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &service{t: t}
			for i := 0; i < len(tt.steps); i += 2 {
				p := s.plan(tt.scheduler, tt.steps[i])
				if got := s.next(p, len(tt.steps[i+1])); got != tt.steps[i+1] {
					t.Fatalf("of %q: chose %s, want %s", tt.steps[i], got, tt.steps[i+1])
				}
			}
		})
	}
}

// TestOlderPlanLeavesTheStateAlone is about a worker that has not seen a reload yet: it chooses by the plan it has, and the others
// go on as if it had not been there.
func TestOlderPlanLeavesTheStateAlone(t *testing.T) {
	tests := []struct {
		scheduler, older, newer string
		before, stale, after    string // chosen by the older plan, by the newer, by the older again, by the newer
		between                 string
	}{
		{scheduler: "rr", older: "A1 B1 C1", newer: "A1 C1 D1", before: "AB", between: "C", stale: "AAA", after: "DAC"},
		{scheduler: "rr", older: "A1 B1", newer: "C1 A1 B1", before: "A", between: "BC", stale: "AAA", after: "ABC"},
		{scheduler: "wrr", older: "A2 B1", newer: "A2 B1 C1", before: "A", between: "AB", stale: "AA", after: "CAABC"},
	}
	for _, tt := range tests {
		t.Run(tt.scheduler+" "+tt.older+" to "+tt.newer, func(t *testing.T) {
			s := &service{t: t}
			older := s.plan(tt.scheduler, tt.older)
			newer := s.plan(tt.scheduler, tt.newer)
			got := [4]string{s.next(older, len(tt.before)), s.next(newer, len(tt.between)), s.next(older, len(tt.stale)), s.next(newer, len(tt.after))}
			if want := [4]string{tt.before, tt.between, tt.stale, tt.after}; got != want {
				t.Errorf("chose %q, want %q", got, want)
			}
		})
	}
}

// TestAnotherSchedulerStartsAnew: the kernel forgets the old scheduler's mark when a service is edited to have another, and coming back to
// the first is no exception.
func TestAnotherSchedulerStartsAnew(t *testing.T) {
	s := &service{t: t}
	if got := s.next(s.plan("rr", "A3 B1 C1"), 2); got != "AB" {
		t.Fatalf("rr chose %s", got)
	}
	if got := s.next(s.plan("wrr", "A3 B1 C1"), 3); got != "AAA" { // at the highest level, not a new service's
		t.Errorf("wrr after rr chose %s, want AAA", got)
	}
	s.next(s.plan("lc", "A3 B1 C1"), 1)
	if got := s.next(s.plan("rr", "A3 B1 C1"), 2); got != "AB" {
		t.Errorf("rr after lc chose %s, want AB", got)
	}
	s.next(s.plan("wrr", "A1 B1 C1"), 2)
	if got := s.next(s.plan("rr", "A1 B1 C1"), 2); got != "AB" { // not where wrr stood
		t.Errorf("rr after wrr chose %s, want AB", got)
	}
}

func TestPositionMovesNothing(t *testing.T) {
	s := &service{t: t}
	p := s.plan("wrr", "A3 B1")
	s.next(p, 3)
	want := Position{Last: 0, LastID: 'A', Level: 3, Top: 3, Step: 1}
	for range 2 {
		if got := p.Position(&s.state); got != want {
			t.Errorf("position %+v, want %+v", got, want)
		}
	}
	if got := s.plan("wrr", "B1 A3").Position(&s.state); got.Last != -1 { // as it would be after the edit
		t.Errorf("position in the next plan %+v, want to start with the head", got)
	}
	if got := p.Position(&s.state); got != want {
		t.Errorf("position %+v after looking at it in another plan, want %+v", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	load := new(Load)
	tests := []struct {
		name      string
		scheduler string
		options   Options
		dests     []Dest
		want      error  // wrapped, or
		text      string // said
	}{
		{name: "a scheduler that is none", scheduler: "wlx", want: ErrUnknownScheduler, text: `scheduler "wlx": unknown scheduler`},
		{name: "no scheduler", scheduler: "", want: ErrUnknownScheduler},
		{name: "another scheduler's flag", scheduler: "sh", options: Options{Flags: MhPort}, want: ErrOption},
		{name: "a flag where there are none", scheduler: "rr", options: Options{Flags: ShPort}, want: ErrOption},
		{name: "a negative weight", scheduler: "rr", dests: []Dest{{Load: load}, {Load: load, Weight: -1}}, text: `scheduler "rr": dests[1]: weight -1 is negative`},
		{name: "a negative last weight", scheduler: "mh", dests: []Dest{{Load: load, LastWeight: -1}}, text: `scheduler "mh": dests[0]: last weight -1 is negative`},
		{name: "more destinations than mh's table has slots", scheduler: "mh", dests: slices.Repeat([]Dest{{Load: load, Weight: 1}}, 4094),
			text: `scheduler "mh": 4094 destinations, but its table has room for 4093`},
		{name: "a table that is not mh's", scheduler: "sh", options: Options{Slots: 4093}, want: ErrOption,
			text: `scheduler "sh": table size 4093: option belongs to another scheduler`},
		{name: "a seed for what hashes no clients", scheduler: "dh", options: Options{Seed: 1}, want: ErrOption},
		{name: "a table of any size", scheduler: "mh", options: Options{Slots: 4096}, want: ErrSlots},
		{name: "a table of no size", scheduler: "mh", options: Options{Slots: -1}, want: ErrSlots},
		{name: "more destinations than the table has slots", scheduler: "mh", options: Options{Slots: 251}, dests: slices.Repeat([]Dest{{Load: load, Weight: 1}}, 252),
			text: `scheduler "mh": 252 destinations, but its table has room for 251`},
		{name: "more destinations than a slot can name", scheduler: "mh", options: Options{Slots: 131071}, dests: slices.Repeat([]Dest{{Load: load, Weight: 1}}, 65537),
			text: `scheduler "mh": 65537 destinations, but its table has room for 65536`},
		{name: "a destination without Load", scheduler: "sh", dests: []Dest{{}}, text: `scheduler "sh": dests[0]: no Load`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.scheduler, tt.options, 1, tt.dests)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || tt.text != "" && err.Error() != tt.text {
				t.Errorf("error %v, want %v %s", err, tt.want, tt.text)
			}
		})
	}
}

// TestSharedByWorkers has eight workers choose at once, some of them still by an old plan at first: round robin over all of them is still
// round robin.
func TestSharedByWorkers(t *testing.T) {
	const workers, each = 8, 3000
	for _, tt := range []struct {
		scheduler string
		weights   []int32
	}{{"rr", []int32{1, 1, 1, 1, 1, 1}}, {"wrr", []int32{3, 2, 1}}} {
		t.Run(tt.scheduler, func(t *testing.T) {
			dests, sum := make([]Dest, len(tt.weights)), int32(0)
			for i, w := range tt.weights {
				dests[i] = Dest{Load: new(Load), ID: uint32(i), Weight: w}
				sum += w
			}
			p, err := New(tt.scheduler, Options{}, 1, dests)
			if err != nil {
				t.Fatal(err)
			}
			var state State
			var all sync.WaitGroup
			for range workers {
				all.Go(func() {
					for range each {
						i := p.Schedule(&state, &Flow{})
						dests[i].Load.Bind(true, 0, 0)
					}
				})
			}
			all.Wait()
			for i, w := range tt.weights {
				if got, want := dests[i].Load.Active(), workers*each*int(w)/int(sum); got != want {
					t.Errorf("destination %d of weight %d got %d connections, want exactly %d", i, w, got, want)
				}
			}
		})
	}
}

// TestReloadUnderLoad publishes plans while workers choose by the one that they see. Every choice must be a destination of the plan asked.
func TestReloadUnderLoad(t *testing.T) {
	for _, scheduler := range []string{"rr", "wrr", "wlc", "dh", "mh", "sed", "lblc", "lblcr", "twos"} {
		t.Run(scheduler, func(t *testing.T) {
			s := &service{t: t}
			hashes := scheduler == "dh" || scheduler == "mh" // and have none for who hashes to weight 0
			var plans []*Plan
			for i := range 50 {
				plans = append(plans, s.plan(scheduler, []string{"A3 B1 C2", "C1 A1", "B2", "D4 A2 B2 C0"}[i%4]))
			}
			var all sync.WaitGroup
			for w := range 8 {
				all.Go(func() {
					for i := range 50 * 20 {
						p := plans[min(i/20+w%3, len(plans)-1)] // some are ahead of others
						if i%20 == 0 {
							p.Adopt(&s.state)
						}
						f := Flow{Src: [16]byte{3: byte(i)}, Dst: [16]byte{3: byte(i & 7)}, Now: int64(i) * 1e9}
						if n := p.Schedule(&s.state, &f); n < 0 && !hashes || n >= len(p.dests) || n >= 0 && p.dests[n].weight == 0 {
							t.Errorf("chose %d of %d", n, len(p.dests))
						}
					}
				})
			}
			all.Wait()
			if got := s.state.plan.Load(); got != plans[len(plans)-1] {
				t.Errorf("the state is of generation %d, want the last, %d", got.generation, plans[len(plans)-1].generation)
			}
		})
	}
}

// A scheduler that is put back to where another process' stood decides as if there had been one.
func TestResume(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			dests := func() []Dest {
				return []Dest{{Load: new(Load), ID: 7, Weight: 3}, {Load: new(Load), ID: 3, Weight: 1}, {Load: new(Load), ID: 9, Weight: 2}}
			}
			plan := func() (*Plan, *State) {
				p, err := New(name, Options{}, 1, dests())
				if err != nil {
					t.Fatal(err)
				}
				s := new(State)
				p.Adopt(s)
				return p, s
			}
			p, s := plan()
			for range 20 {
				other, fresh := plan()
				at := p.Position(s)
				other.Resume(fresh, at)
				if got := other.Position(fresh); got != at {
					t.Fatalf("%+v became %+v", at, got)
				}
				p.Schedule(s, &Flow{})
			}
			p.Resume(s, Position{LastID: 1234, Level: 1 << 30})
			p.Resume(s, Position{LastID: 9, Level: 1 << 30})
			if n := p.Schedule(s, &Flow{}); n < 0 || n > 2 {
				t.Errorf("after a position that there is not: %d", n)
			}
		})
	}
}
