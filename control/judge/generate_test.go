package judge

import (
	"reflect"
	"slices"
	"testing"
)

// TestGenerate holds scenarios to what the recorder and the departures ask of them.
func TestGenerate(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(500) {
		s := Generate(seed, AllFeatures())
		if again := Generate(seed, AllFeatures()); !reflect.DeepEqual(s, again) {
			t.Fatalf("seed %d: two scenarios", seed)
		}
		if len(s.Services) == 0 || len(s.Ops) < 20 {
			t.Errorf("seed %d: %d services, %d operations", seed, len(s.Services), len(s.Ops))
		}
		services, waited := s.Services, 0
		for i := range s.Ops {
			o := &s.Ops[i]
			seen[o.Do]++
			switch o.Do {
			case DoWait:
				waited += o.Seconds
				if o.Seconds%gridSeconds != 0 {
					t.Errorf("seed %d: waits %d s", seed, o.Seconds)
				}
			case DoEdit:
				var err error
				if services, err = o.Edit.apply(services); err != nil {
					t.Errorf("seed %d: operation %d: %v", seed, i, err)
				}
			default:
				if o.Flow >= len(s.Flows) {
					t.Errorf("seed %d: operation %d: flow %d of %d", seed, i, o.Flow, len(s.Flows))
				}
			}
		}
		if waited > waitSeconds {
			t.Errorf("seed %d: waits %d s", seed, waited)
		}
		if x := s.Timeouts; x != nil && (x.TCP%gridSeconds == 0 || x.TCPFin%gridSeconds == 0 || x.UDP%gridSeconds == 0) {
			t.Errorf("seed %d: timeouts %v end when a wait does", seed, *x)
		}
		for _, v := range services {
			seen[v.Scheduler]++
			seen[v.Protocol]++
			for j := range v.Backends {
				seen[v.Backends[j].Forward]++
				if v.find(&v.Backends[j]) != j {
					t.Errorf("seed %d: %v is there twice", seed, &v.Backends[j])
				}
			}
		}
	}
	for _, what := range slices.Concat(Schedulers, AllFeatures().Forwards, []string{"nat", "tcp", "udp", "sctp", DoPacket, DoError, DoEcho, DoEdit, DoWait}) {
		if seen[what] == 0 {
			t.Errorf("500 seeds without %s", what)
		}
	}
}

// TestFeaturesOff makes none of what is switched off.
func TestFeaturesOff(t *testing.T) {
	for seed := range uint64(200) {
		s := Generate(seed, Features{Schedulers: []string{"rr"}})
		for _, v := range s.Services {
			if v.Scheduler != "rr" || v.Protocol == "sctp" || v.OnePacket || v.Persistence != nil {
				t.Errorf("seed %d: %v", seed, &v)
			}
			for _, b := range v.Backends {
				if b.Forward != "nat" {
					t.Errorf("seed %d: %v", seed, &b)
				}
			}
		}
		for i := range s.Ops {
			if o := &s.Ops[i]; o.Do == DoEdit || o.Do == DoWait || o.Do == DoError || len(o.Cut) > 0 {
				t.Errorf("seed %d: %v", seed, o)
			}
		}
	}
}
