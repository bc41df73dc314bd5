package chaos

import (
	"maps"
	"testing"
	"time"
)

func TestRingKeepsTheLatest(t *testing.T) {
	var r ring
	start := time.Now()
	at := func(i int) time.Time { return start.Add(time.Duration(i) * ringPeriod) }
	n := len(r.moments) + 50
	for i := range n {
		r.add(moment{at: at(i)})
	}
	for _, x := range []struct{ from, to, want int }{
		{n - 10, n - 1, 10},
		{n - 10, n + 100, 10},
		{0, n, len(r.moments)},
		{0, 49, 0},
		{0, 50, 1},
	} {
		got := r.between(at(x.from), at(x.to))
		if len(got) != x.want {
			t.Errorf("from %d to %d: %d moments, want %d", x.from, x.to, len(got), x.want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].at.Before(got[i-1].at) {
				t.Errorf("from %d to %d: not in order", x.from, x.to)
			}
		}
	}
}

func TestKernelTables(t *testing.T) {
	for _, x := range []struct {
		name, text string
		want       map[string]uint64
	}{
		{"snmp", "Udp: InDatagrams NoPorts InErrors\nUdp: 3567 53 2\nIp: Forwarding InDiscards\nIp: 1 9\n",
			map[string]uint64{"lb UdpNoPorts": 53, "lb UdpInErrors": 2, "lb IpInDiscards": 9}},
		{"snmp6", "Ip6InReceives                   	100\nIp6InNoRoutes                   	7\nUdp6NoPorts                     	0\n",
			map[string]uint64{"lb Ip6InNoRoutes": 7, "lb Udp6NoPorts": 0}},
		{"dev", "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"   wan: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
			map[string]uint64{"lb wan: rx errors": 3, "lb wan: rx dropped": 4, "lb wan: tx errors": 11, "lb wan: tx dropped": 12}},
	} {
		got := map[string]uint64{}
		(&kernelTable{space: "lb", name: x.name}).parse(x.text, got)
		if !maps.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}
