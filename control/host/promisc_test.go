package host_test

import (
	"slices"
	"strings"
	"testing"
)

// TestPromiscuous asks iproute2, which prints how many want it of a device.
func TestPromiscuous(t *testing.T) {
	p := newPair(t)
	m := p.h.NewPromiscuous()
	check := func(what string, on bool) {
		t.Helper()
		if got := !strings.Contains(ip(t, p.lb, "-d link show dev wan"), "promiscuity 0"); got != on || slices.Contains(m.Devices(), p.wan) != on {
			t.Errorf("%s: it is so: %v, want %v; for us: %v", what, got, on, m.Devices())
		}
	}
	check("at first", false)
	must(t, m.Set([]int{p.wan}))
	check("wanted", true)
	must(t, m.Set([]int{p.wan}))
	check("again", true)
	if err := m.Set([]int{p.wan, 9999}); err == nil || !strings.Contains(err.Error(), "device 9999") {
		t.Errorf("a device that is not there: %v", err)
	}
	check("with a device that is not there", true)
	must(t, m.Set(nil))
	check("no longer", false)
	must(t, m.Set([]int{p.wan}))
	must(t, m.Close())
	check("after all", false)
}
