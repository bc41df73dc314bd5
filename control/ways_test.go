package control

import (
	"fmt"
	"testing"
)

// through is a service with one server, reached in a way.
func through(way string) string {
	return fmt.Sprintf("  - {name: web, vip: 198.18.9.9, port: 80, forward: %s, backends: [{address: 198.18.1.10, port: 80}]}\n", way)
}

// TestWayChangesUnderConnections: a tunnel's connection outlives the tunnel in the configuration, and so does what was learned of its path.
func TestWayChangesUnderConnections(t *testing.T) {
	for _, was := range []string{"ipip", "gue", "gre"} {
		for _, is := range []string{"nat", "dr", "ipip", "gre"} {
			b := newCoreBed(t, through(was))
			id := b.core.engine.Snapshot().Services.All[0].Dests[0]
			path := b.core.engine.Snapshot().Backends[id].Path
			if got := b.connect(); got != 10 {
				t.Fatalf("%s: the outer packet went to .%d", was, got)
			}
			b.reload(through(is))
			s := b.core.engine.Snapshot()
			if got := s.Backends[id].Path; got == nil || got != path {
				t.Errorf("%s to %s: the path is another one, or none", was, is)
			}
			if got := b.send(b.port, false); got != 10 {
				t.Errorf("%s to %s: the connection's next packet went to .%d", was, is, got)
			}
		}
	}
}
