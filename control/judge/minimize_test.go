package judge

import (
	"context"
	"slices"
	"testing"
)

// TestMinimize shrinks scripts for a kernel and a balancer that differ when flow 7 comes after flow 3 and the second service is there.
func TestMinimize(t *testing.T) {
	var s Script
	for i := range 40 {
		s.Ops = append(s.Ops, Op{Do: DoPacket, Flow: i % 10})
	}
	s.Services = []Service{{VIP: "a", Backends: make([]Backend, 5)}, {VIP: "a", Port: 7, Backends: make([]Backend, 3)}, {VIP: "a"}}
	s.Options = map[string]int{"sloppy_tcp": 1}
	s.Timeouts = &Timeouts{}
	recordings := func(_ context.Context, scripts []Script) (all []*Recording) {
		for i := range scripts {
			r := &Recording{Name: scripts[i].Name, Services: scripts[i].Services}
			for j := range scripts[i].Ops {
				r.Steps = append(r.Steps, Step{Packet: string(rune('0' + scripts[i].Ops[j].Flow))})
				r.Ops = append(r.Ops, j)
			}
			all = append(all, r)
		}
		return all
	}
	play := func(r *Recording) error {
		if !slices.ContainsFunc(r.Services, func(s Service) bool { return s.Port == 7 }) {
			return &Difference{Kind: "another"}
		}
		three := false
		for i := range r.Steps {
			if three = three || r.Steps[i].Packet == "3"; three && r.Steps[i].Packet == "7" {
				return &Difference{Step: i, Kind: "seven"}
			}
		}
		return nil
	}
	first := recordings(t.Context(), []Script{s})[0]
	m := &minimizer{record: recordings, play: play, best: s, recording: first, why: play(first)}
	m.shrink(t.Context())
	if len(m.best.Ops) != 2 || m.best.Ops[0].Flow != 3 || m.best.Ops[1].Flow != 7 {
		t.Errorf("operations %v", m.best.Ops)
	}
	if len(m.best.Services) != 1 || m.best.Services[0].Port != 7 || len(m.best.Services[0].Backends) != 0 || m.best.Timeouts != nil || len(m.best.Options) != 0 {
		t.Errorf("left: %v", &m.best)
	}
	if len(s.Ops) != 40 || len(s.Services[0].Backends) != 5 {
		t.Error("the script it was given has changed")
	}
}
