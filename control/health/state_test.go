package health

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// TestRiseAndFall walks a state through answers, y for a success.
func TestRiseAndFall(t *testing.T) {
	for _, x := range []struct {
		name, answers, want string // want: the state after each answer, U up, D down
		rise, fall          int
		down                bool
	}{
		{name: "one failure of three is none", answers: "ynynny", want: "UUUUUU", rise: 2, fall: 3},
		{name: "three in a row take it down", answers: "ynnny", want: "UUUDD", rise: 2, fall: 3},
		{name: "two in a row bring it up", answers: "ynnnyynyy", want: "UUUDDUUUU", rise: 2, fall: 3},
		{name: "a failure between two successes starts anew", answers: "nynyy", want: "DDDDU", rise: 2, fall: 3},
		{name: "the first answer decides at once", answers: "n", want: "D", rise: 2, fall: 3},
		{name: "and a good one, too", answers: "y", want: "U", rise: 2, fall: 3, down: true},
		{name: "one is enough", answers: "nyny", want: "DUDU", rise: 1, fall: 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := &Check{Rise: x.rise, Fall: x.fall}
			s := State{Up: !x.down}
			got := ""
			for i, a := range x.answers {
				var err error
				if a == 'n' {
					err = errors.New("no")
				}
				was := s.Up
				if changed := s.note(c, err, time.Unix(int64(i+1), 0), time.Second); changed != (was != s.Up) {
					t.Errorf("answer %d: changed %t, from %t to %t", i, changed, was, s.Up)
				}
				got += map[bool]string{true: "U", false: "D"}[s.Up]
			}
			if got != x.want {
				t.Errorf("answers %s made %s, want %s", x.answers, got, x.want)
			}
		})
	}
}

// TestStateAgainstTwin holds note to a twin that looks at the whole history each time: up if the latest Rise answers were good, down if the latest
// Fall were bad, else as before.
func TestStateAgainstTwin(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := &Check{Rise: 1 + r.IntN(4), Fall: 1 + r.IntN(4)}
		s := State{Up: r.IntN(2) == 0, Since: time.Unix(0, 0)}
		var history []bool
		up, since, failed := s.Up, s.Since, uint64(0)
		for i := range 200 {
			ok := r.IntN(10) < 2+6*int(seed%2)
			if i%30 > 20 {
				ok = i%60 > 30 // long runs
			}
			history = append(history, ok)
			was := up
			need := c.Fall
			if ok {
				need = c.Rise
			}
			all := len(history) >= need
			for n := range min(need, len(history)) {
				all = all && history[len(history)-1-n] == ok
			}
			if all || len(history) == 1 {
				up = ok
			}
			at := time.Unix(int64(i+1), 0)
			if up != was {
				since = at
			}
			var err error
			if !ok {
				failed++
				err = errors.New("no")
			}
			if changed := s.note(c, err, at, 0); changed != (up != was) || s.Up != up || !s.Since.Equal(since) || (s.Why == "") != ok ||
				s.Answers != uint64(len(history)) || s.Failed != failed {
				t.Fatalf("seed %d, rise %d, fall %d: after %v it is %+v, changed %t, want up %t since %v", seed, c.Rise, c.Fall, history, s, changed, up, since)
			}
		}
	}
}
