package vxlan

import "testing"

func TestTwins(t *testing.T) {
	x := NewTwins(2)
	for _, step := range []struct {
		name string
		note bool
		now  Second
		want bool
	}{
		{"never heard", false, 100, false},
		{"heard", true, 100, true},
		{"in the same second by another worker that is behind", true, 99, true},
		{"299 s later", false, 399, true},
		{"300 s later", false, 400, false},
		{"again", true, 500, true},
	} {
		if step.note {
			x.Note(1, step.now)
		}
		if got := x.Heard(1, step.now); got != step.want || x.Heard(0, step.now) {
			t.Errorf("%s: heard %v, another segment %v", step.name, got, x.Heard(0, step.now))
		}
	}
	var none *Twins
	none.Note(0, 1)
	x.Note(7, 1) // a segment that there is no room for
	if none.Heard(0, 1) || x.Heard(7, 1) {
		t.Error("something was heard where there is no room for it")
	}
}
