package control

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/judge"
	"weir/dataplane"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet/pkttest"
)

// TestGolden plays every recording of the kernel into the engine and compares what comes out, packet by packet. WEIR_GOLDEN names another
// directory of the same format. testdata/ipvs has what TestIPVS came upon, shrunk.
func TestGolden(t *testing.T) {
	dirs := []string{filepath.Join("..", "testdata", "golden"), filepath.Join("..", "testdata", "ipvs")}
	if dir := os.Getenv("WEIR_GOLDEN"); dir != "" {
		dirs = []string{dir}
	}
	var recordings []*judge.Recording
	for _, dir := range dirs {
		r, err := judge.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		recordings = append(recordings, r...)
	}
	for _, r := range recordings {
		t.Run(r.Name, func(t *testing.T) {
			if err := judge.Play(r, newGoldenBed(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// goldenBed is the engine between the two links of a recording: a judge.Balancer.
type goldenBed struct {
	t      *testing.T
	core   *core
	worker *dataplane.Worker
	ports  [2]*mem.Port
}

func newGoldenBed(t *testing.T) *goldenBed {
	table, err := conntrack.New(conntrack.Options{Capacity: 4096, Workers: 1, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	b := &goldenBed{t: t, core: newCore(table, 1, 1)}
	b.core.engine.HostAnswers = true
	return b
}

// Configure makes every edit a reload. A service that was touched is planned anew even if nothing is different, as the kernel does at an
// edit of a backend; a reload has no such edit: what is unchanged keeps its position.
func (b *goldenBed) Configure(yaml string, touched *judge.Service, now int64) error {
	for key, s := range b.core.reg.services {
		if touched != nil && config.VIPText(key.vip) == touched.VIP && int(key.port) == touched.Port && protocolName(key.protocol) == touched.Protocol {
			s.from, s.real.inputs.dests = nil, ""
		}
	}
	cfg, diags := config.ParseReplay("golden.yaml", []byte(yaml))
	if config.HasErrors(diags) {
		return fmt.Errorf("%v\n%s", config.Errors(diags), yaml)
	}
	s, err := offline(cfg)
	if err != nil {
		return err
	}
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	x, err := b.core.prepare(cfg, s)
	if err == nil {
		err = b.core.publish(cfg, x, time.Unix(0, now))
	}
	if b.worker == nil && err == nil {
		b.worker, b.ports = attach(b.t, b.core)
	}
	return err
}

func (b *goldenBed) Expire(now int64) { b.worker.ExpireAll(now) }

func (b *goldenBed) Send(side int, ip []byte, now int64) (out []judge.Output, verdict string, err error) {
	b.worker.Round(now) // settles fragments that have waited long enough: their verdicts are not this packet's
	before, beforeDrops := b.core.engine.Verdicts()
	from, to := judge.MACs(side)
	if !b.ports[side].Inject(pkttest.Frame(ip, pkttest.MAC(from), pkttest.MAC(to))) {
		return nil, "", fmt.Errorf("the port takes no frame")
	}
	b.worker.Round(now)
	after, afterDrops := b.core.engine.Verdicts()
	for port := range b.ports {
		buf := make([]byte, 4096)
		for {
			n, ok := b.ports[port].Take(buf)
			if !ok {
				break
			}
			out = append(out, judge.Output{Side: port, MAC: macText([6]byte(buf)), IP: bytes.Clone(buf[14:n])})
		}
	}
	return out, counted(before, after, beforeDrops, afterDrops), nil
}

// counted is the verdict, or for a drop its reason, that one packet got.
func counted(before, after dataplane.Verdicts, beforeDrops, afterDrops [dataplane.NumDrops]uint64) string {
	for d := range afterDrops {
		if afterDrops[d] > beforeDrops[d] {
			return dataplane.Drop(d).String()
		}
	}
	switch {
	case after.Forwarded > before.Forwarded:
		return "forwarded"
	case after.Answered > before.Answered:
		return "answered"
	case after.Punted > before.Punted:
		return "punted"
	case after.Held > before.Held:
		return "held"
	}
	return "passed"
}

// TestGoldenSeesEveryChange plays recordings in which one thing that came out is another, or missing, or there is more: the judge must see it.
func TestGoldenSeesEveryChange(t *testing.T) {
	recordings, err := judge.Load(filepath.Join("..", "testdata", "golden", "ipvs", "schedulers"))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range recordings {
		at := -1 // the last step that something came of
		for j := range r.Steps {
			if len(r.Steps[j].Expect) > 0 {
				at = j
			}
		}
		was := r.Steps[at].Expect
		ip := []byte(was[0].Packet)
		ip[len(ip)-1-i%8] = "123456789abcdef0"[strings.IndexByte("0123456789abcdef", ip[len(ip)-1-i%8])]
		side := was[0]
		side.Side = map[string]string{"client": "server", "server": "client"}[side.Side]
		for name, expect := range map[string][]judge.Packet{
			"byte": {{Side: was[0].Side, Packet: string(ip), Exact: true}}, "side": {side}, "missing": nil, "more": append(was[:1:1], was[0]),
		} {
			r.Steps[at].Expect = expect
			d := (*judge.Difference)(nil)
			if err := judge.Play(r, newGoldenBed(t)); !errors.As(err, &d) || d.Step != at {
				t.Errorf("%s, step %d, %s: got %v", r.Name, at, name, err)
			}
		}
	}
}
