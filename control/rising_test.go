package control

import (
	"reflect"
	"testing"
	"time"

	"weir/dataplane"
)

// TestRising lets counters rise in steps of ten seconds: what goes on is told of once, what begins anew after a minute of calm once more.
func TestRising(t *testing.T) {
	var r rising
	var now [countersSeen]uint64
	at := time.Unix(1_000_000, 0)
	for i, step := range []struct {
		rise map[int]uint64
		want []rise
	}{
		{nil, nil},
		{map[int]uint64{int(dataplane.DropTTL): 3}, []rise{{"ttl", 3, false}}},
		{map[int]uint64{int(dataplane.DropTTL): 1, int(dataplane.DropTableFull): 7}, []rise{{"table_full", 7, true}}},
		{map[int]uint64{evictions: 2, refusals: 1}, []rise{{"half_open_evicted", 2, true}, {"fdb_refused", 1, true}}},
		{nil, nil}, {nil, nil}, {nil, nil},
		{map[int]uint64{int(dataplane.DropTTL): 1}, nil}, // 50 s after it rose last
		{nil, nil}, {nil, nil}, {nil, nil}, {nil, nil}, {nil, nil},
		{map[int]uint64{int(dataplane.DropTTL): 5}, []rise{{"ttl", 5, false}}}, // 60 s
	} {
		for c, n := range step.rise {
			now[c] += n
		}
		if got := r.look(&now, at); !reflect.DeepEqual(got, step.want) {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
		at = at.Add(10 * time.Second)
	}
}
