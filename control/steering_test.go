package control

import (
	"testing"

	"weir/control/config"
	"weir/control/host"
)

// TestUnguarded: news of a device that was made anew are not waited with, all others are.
func TestUnguarded(t *testing.T) {
	p := &ports{
		cfg: &config.Config{Ports: []config.Port{{Name: "wan", Interface: "eth1"}, {Name: "wan7", Interface: "eth1", VLAN: 7}, {Name: "lan", Interface: "eth2"}}},
		// eth1 is guarded by its first port; eth2 is not there yet
		guarded: map[int]guard{0: {ifindex: 5, mode: "native"}},
	}
	link := func(name string, index int) host.Event {
		return host.Event{Change: host.ChangeLink, Link: host.Link{Name: name, Index: index}}
	}
	gone := link("eth1", 6)
	gone.Gone = true
	for _, x := range []struct {
		name string
		e    host.Event
		want bool
	}{
		{"a device that is guarded goes up", link("eth1", 5), false},
		{"another device of its name", link("eth1", 6), true},
		{"one that was not there before", link("eth2", 7), true},
		{"one of nobody's", link("eth3", 8), false},
		{"one that goes", gone, false},
		{"an address", host.Event{Change: host.ChangeAddress}, false},
		{"anything", host.Event{Change: host.ChangeAll}, false},
	} {
		if got := p.unguarded(x.e); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}
