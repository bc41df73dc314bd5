package control

import (
	"fmt"
	"testing"
	"time"
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

// TestWayOfAConnectionBetweenCompileAndPublish: a connection that is opened by the old way while the new one is being compiled is still answered,
// and the old way is forgotten when nobody has opened one.
func TestWayOfAConnectionBetweenCompileAndPublish(t *testing.T) {
	for _, opened := range []bool{true, false} {
		b := newCoreBed(t, through("nat"))
		cfg := b.parse(through("dr"))
		s, err := offline(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x, err := b.core.prepare(cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		if opened && b.connect() != 10 {
			t.Fatal("no connection by the old way")
		}
		if err := b.core.publish(cfg, x, time.Now()); err != nil {
			t.Fatal(err)
		}
		if len(x.rules.Servers) != 1 {
			t.Errorf("opened %v: steering takes the answers of %d servers, want 1", opened, len(x.rules.Servers))
		}
		later := time.Now().Add(2 * time.Second)
		if got := b.core.reg.collect(later, b.core.engine.Backend); got == opened {
			t.Errorf("opened %v: a new snapshot is asked for: %v", opened, got)
		}
		if x, err = b.core.again(s); err != nil {
			t.Fatal(err)
		}
		if b.core.reg.collect(later, b.core.engine.Backend) {
			t.Errorf("opened %v: another snapshot is asked for", opened)
		}
		if got := len(x.rules.Servers) == 1; got != opened {
			t.Errorf("opened %v: with the next snapshot steering takes the answers of %d servers", opened, len(x.rules.Servers))
		}
	}
}

// TestWaysOfBeforeATakeover: the successor compiles before it is told of connections, and still takes what comes back to them by a way that it does not
// configure. When it knows that there is none, that way is forgotten.
func TestWaysOfBeforeATakeover(t *testing.T) {
	for _, connected := range []bool{true, false} {
		b := newCoreBed(t, through("nat"))
		b.connect()
		next := newCoreBedWith(t, through("dr"), func(c *core) {
			c.reg.restore(b.core.reg.legend())
			c.reg.expect()
		})
		again := func(when string, want int) {
			t.Helper()
			x, err := next.core.again(next.surroundings(through("dr")))
			if err != nil {
				t.Fatal(err)
			}
			if len(x.rules.Servers) != want {
				t.Errorf("connected %v, %s: steering takes the answers of %d servers, want %d", connected, when, len(x.rules.Servers), want)
			}
		}
		again("before the state", 1)
		later := time.Now().Add(2 * time.Second)
		if next.core.reg.collect(later, next.core.engine.Backend) {
			t.Error("something is given back before the state")
		}
		for id, x := range b.core.reg.ids {
			if connected {
				next.core.reg.ids[id].load.Restore(x.load.State())
			}
		}
		next.core.reg.counted()
		if freed := next.core.reg.collect(later, next.core.engine.Backend); freed == connected {
			t.Errorf("connected %v: a new snapshot is asked for: %v", connected, freed)
		}
		again("with the state", map[bool]int{true: 1, false: 0}[connected])
	}
}
