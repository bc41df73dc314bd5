package control

import (
	"slices"
	"testing"

	"weir/control/config"
	"weir/dataplane/sched"
)

func TestSchedulerOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		in   config.Service
		want sched.Options
	}{
		{"none", config.Service{Scheduler: "wlc", MHTable: 4093}, sched.Options{}},
		{"a seed and flags of sh", config.Service{Scheduler: "sh", MHTable: 4093, HashSeed: 7, Flags: []string{"sh-port", "sh-fallback"}},
			sched.Options{Flags: sched.ShPort | sched.ShFallback, Seed: 7}},
		{"a table of mh", config.Service{Scheduler: "mh", MHTable: 65521, HashSeed: 7, Flags: []string{"mh-fallback"}},
			sched.Options{Flags: sched.MhFallback, Slots: 65521, Seed: 7}},
	} {
		got := optionsOf(&c.in)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if _, err := sched.New(c.in.Scheduler, got, 1, nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What a configuration may ask for is what the scheduler can do.
func TestTableSizesAreTheSchedulers(t *testing.T) {
	if got := slices.Sorted(slices.Values(config.MHTables)); !slices.Equal(got, sched.Slots()) {
		t.Errorf("config knows %v, sched %v", got, sched.Slots())
	}
}
