package sched

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestOverload follows the flag through binds (+), unbinds (-), edits of the upper threshold (=n) and templates (t, T). The string tells the flag
// after each step.
func TestOverload(t *testing.T) {
	tests := []struct {
		name         string
		upper, lower uint32
		steps        string
		want         string
	}{
		{name: "no threshold, never overloaded", steps: "+++-", want: "...."},
		{name: "the connection that reaches upper sets it", upper: 3, steps: "+++", want: "..!"},
		{name: "without lower it falls below three quarters: 3 of 4 is not below", upper: 4, steps: "++++--", want: "...!!."},
		{name: "three quarters of 3 are 2.25: 2 is below", upper: 3, steps: "+++-", want: "..!."},
		{name: "three quarters of 1: none left is below", upper: 1, steps: "+-", want: "!."},
		{name: "below lower, not at it", upper: 4, lower: 2, steps: "++++---", want: "...!!!."},
		{name: "lower of 1 waits for the last to end", upper: 2, lower: 1, steps: "++--", want: ".!!."},
		{name: "raised: lifted at once", upper: 2, steps: "++=3", want: ".!."},
		{name: "raised, but still too low: the next connection sets it again", upper: 2, steps: "+++=3+", want: ".!!.!"},
		{name: "edited to what it was: stays", upper: 2, steps: "++=2", want: ".!!"},
		{name: "taken away: lifted at once", upper: 2, steps: "++=0+", want: ".!.."},
		{name: "lowered: nothing until the next connection", upper: 4, steps: "++=2+", want: "...!"},
		{name: "lowered while overloaded: stays", upper: 2, steps: "++=1-", want: ".!!!"},
		{name: "lowered from none: is raised from 0 in the kernel's eyes, and then looked at", upper: 0, steps: "+=1+", want: "..!"},
		{name: "a template looks at the threshold, but counts for nothing", upper: 2, steps: "+t+=3tT", want: "..!..."},
		{name: "a template's end lifts as a connection's does", upper: 4, lower: 4, steps: "t++++=5-=4T", want: "....!...."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l Load
			got, upper := "", tt.upper
			for i := 0; i < len(tt.steps); i++ {
				switch tt.steps[i] {
				case '+':
					l.Bind(false, upper, tt.lower)
				case '-':
					l.Unbind(false, upper, tt.lower)
				case 't':
					l.BindTemplate(upper, tt.lower)
				case 'T':
					l.UnbindTemplate(upper, tt.lower)
				case '=':
					i++
					now := uint32(tt.steps[i] - '0')
					l.Rethreshold(upper, now)
					upper = now
				}
				if l.Overloaded() {
					got += "!"
				} else {
					got += "."
				}
			}
			if got != tt.want {
				t.Errorf("%s with upper %d lower %d: overloaded %s, want %s", tt.steps, tt.upper, tt.lower, got, tt.want)
			}
		})
	}
}

// TestCountsKeepApart draws sequences in which counts also fall below zero, as they do for a moment when one worker ends a connection before
// the other has counted its change of state.
func TestCountsKeepApart(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var l Load
		active, inactive, persistent := 0, 0, 0
		for _, op := range rapid.SliceOf(rapid.IntRange(0, 7)).Draw(r, "operations") {
			switch op {
			case 0:
				l.Bind(true, 0, 0)
				active++
			case 1:
				l.Bind(false, 1, 0)
				inactive++
			case 2:
				l.Unbind(true, 3, 1)
				active--
			case 3:
				l.Unbind(false, 3, 0)
				inactive--
			case 4:
				l.Activate()
				active, inactive = active+1, inactive-1
			case 5:
				l.Deactivate()
				active, inactive = active-1, inactive+1
			case 6:
				l.BindTemplate(0, 0)
				persistent++
			case 7:
				l.UnbindTemplate(0, 0)
				persistent--
			}
			if l.Active() != active || l.Inactive() != inactive || l.Persistent() != persistent {
				r.Fatalf("%d active %d inactive %d persistent, want %d %d %d", l.Active(), l.Inactive(), l.Persistent(), active, inactive, persistent)
			}
			if want := uint64(max(0, 256*active+inactive)); l.overhead() != want {
				r.Fatalf("overhead %d of %d active and %d inactive, want %d", l.overhead(), active, inactive, want)
			}
		}
	})
}

// TestOverloadIsNeverStale has workers open and close connections around a threshold. Whoever comes last, the flag must belong to what is
// left, or a backend without connections would stay out for good.
func TestOverloadIsNeverStale(t *testing.T) {
	for _, lower := range []uint32{0, 2} {
		t.Run(fmt.Sprintf("lower=%d", lower), func(t *testing.T) {
			var l Load
			for range 200 {
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() {
						for range 50 {
							l.Bind(false, 3, lower)
							l.Activate()
							l.Unbind(true, 3, lower)
						}
					})
				}
				all.Wait()
				if l.Active() != 0 || l.Inactive() != 0 || l.Overloaded() {
					t.Fatalf("%d active, %d inactive, overloaded %v after all have ended", l.Active(), l.Inactive(), l.Overloaded())
				}
			}
		})
	}
}
