package main

import (
	"strings"
	"testing"

	"weir/control"
)

// TestExplainWeightZero: a server has weight 0 when it is down under inhibit_on_failure as well, so that is said, and no reason for it.
func TestExplainWeightZero(t *testing.T) {
	var b strings.Builder
	printScheduler(&b, &control.SchedulerView{Name: "wlc", Why: "none is usable: weight 0, or overloaded", Candidates: []control.CandidateView{{Name: "w1"}, {Name: "w2", Weight: 1, Overloaded: true}}})
	for _, want := range []string{"w1 ", "  weight 0\n", "w2 ", "  overloaded\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "drain") {
		t.Errorf("says why it has no weight:\n%s", &b)
	}
}
