package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"weir/dataplane"
	"weir/dataplane/packet"
)

// Limits of a capture or trace. Each ends by itself, so a client that is stopped does not observe for ever.
const (
	sightPeriod  = 20 * time.Millisecond // how often the rings are emptied
	sightWrite   = 5 * time.Second       // a client that takes nothing for so long is given up
	sightDefault = time.Hour
	sightLongest = 24 * time.Hour
	sightRate    = 10_000    // packets a second, unless asked otherwise
	sightFastest = 1_000_000 // at the most
	sightSlots   = 1024      // of each worker's ring
	sightValues  = 64        // of all conditions: workers hold each frame against all of them
)

// sights are the captures and traces that run now.
type sights struct {
	mu   sync.Mutex
	last int
	all  map[int]context.CancelFunc
	over bool
}

// begin registers one, whose context ends with ctx, or by end or stop.
func (s *sights) begin(ctx context.Context) (id int, of context.Context, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, nil, nil, errors.New("weir is stopping")
	}
	of, cancel := context.WithCancel(ctx)
	if s.all == nil {
		s.all = map[int]context.CancelFunc{}
	}
	s.last++
	id = s.last
	s.all[id] = cancel
	return id, of, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, id)
		cancel()
	}, nil
}

// end ends one as if its time were over: what it has seen is written first. It reports false if there is none with this number.
func (s *sights) end(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel, ok := s.all[id]
	if ok {
		cancel()
	}
	return ok
}

// stop ends all, and lets none begin.
func (s *sights) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, cancel := range s.all {
		cancel()
	}
}

// sightRequest is what a capture or trace is asked for.
type sightRequest struct {
	filter   dataplane.TapFilter
	snaplen  int
	count    uint64 // packets, 0: any number
	rate     int
	duration time.Duration
}

// sightRequestOf reads a request: host, port, proto, service, drop, on and stage, each as often as one likes, up to sightValues in all; snaplen, count, rate, duration.
func (c *core) sightRequestOf(r *http.Request) (q sightRequest, err error) {
	if err := r.ParseForm(); err != nil {
		return q, err
	}
	q.rate, q.duration = sightRate, sightDefault
	n := 0
	for _, values := range r.Form {
		n += len(values)
	}
	if n > sightValues {
		return q, fmt.Errorf("%d conditions: must be %d at most (a prefix stands for many hosts)", n, sightValues)
	}
	f := &q.filter
	for name, values := range r.Form {
		for _, s := range values {
			switch name {
			case "host":
				err = appendTo(&f.Hosts, s, parseHost)
			case "port":
				err = appendTo(&f.Ports, s, func(s string) (uint16, error) {
					n, err := strconv.ParseUint(s, 10, 16)
					if err != nil || n == 0 {
						return 0, fmt.Errorf("port %q: must be 1 to 65535", s)
					}
					return uint16(n), nil
				})
			case "proto":
				err = appendTo(&f.Protocols, s, parseProtocol)
			case "service":
				err = c.appendService(&f.Services, s)
			case "drop":
				err = appendTo(&f.Drops, s, parseDrop)
			case "on":
				err = appendTo(&f.On, s, c.portIndex)
			case "stage":
				var stage dataplane.Stage
				stage, err = parseStage(s)
				f.Stages |= stage
			case "snaplen":
				q.snaplen, err = numberOf(name, s, 14, 65535)
			case "count":
				var n int
				n, err = numberOf(name, s, 1, 1<<40)
				q.count = uint64(n)
			case "rate":
				q.rate, err = numberOf(name, s, 1, sightFastest)
			case "duration":
				if q.duration, err = time.ParseDuration(s); err != nil || q.duration <= 0 || q.duration > sightLongest {
					err = fmt.Errorf("duration %q: must be a duration up to %v, such as 10s", s, sightLongest)
				}
			default:
				err = fmt.Errorf("%s: there is no such condition: host, port, proto, service, drop, on, stage, snaplen, count, rate, duration", name)
			}
			if err != nil {
				return q, err
			}
		}
	}
	return q, nil
}

func appendTo[T any](to *[]T, s string, parse func(string) (T, error)) error {
	x, err := parse(s)
	*to = append(*to, x)
	return err
}

func numberOf(name, s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s %q: must be %d to %d", name, s, least, most)
	}
	return n, nil
}

func parseHost(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("host %q: must be an address or a prefix", s)
	}
	return p.Masked(), nil
}

var sightProtocols = map[string]uint8{
	"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "sctp": packet.ProtoSCTP, "icmp": packet.ProtoICMP, "icmp6": packet.ProtoICMPv6,
	"esp": packet.ProtoESP, "ah": packet.ProtoAH, "gre": packet.ProtoGRE,
}

func parseProtocol(s string) (uint8, error) {
	if p, ok := sightProtocols[strings.ToLower(s)]; ok {
		return p, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("proto %q: must be tcp, udp, sctp, icmp, icmp6, esp, ah, gre or a number", s)
	}
	return uint8(n), nil
}

func parseDrop(s string) (dataplane.Drop, error) {
	for d := dataplane.DropNone + 1; d < dataplane.NumDrops; d++ {
		if d.String() == s {
			return d, nil
		}
	}
	return 0, fmt.Errorf("drop %q: there is no such reason (docs/packet-walk.md has all)", s)
}

var stages = map[string]dataplane.Stage{"received": dataplane.StageReceived, "sent": dataplane.StageSent, "dropped": dataplane.StageDropped}

func parseStage(s string) (dataplane.Stage, error) {
	x, ok := stages[s]
	if !ok {
		return 0, fmt.Errorf("stage %q: must be received, sent or dropped", s)
	}
	return x, nil
}

// appendService adds the services with a name, VIP, or VIP:PORT.
func (c *core) appendService(to *[]dataplane.ServiceID, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(*to)
	for key, s := range c.reg.services {
		if s.name == name || key.named(name) {
			*to = append(*to, dataplane.ServiceID{Protocol: key.protocol, VIP: key.vip, VNI: key.vni, Port: key.port, PortTo: key.portTo})
		}
	}
	if len(*to) == n {
		return fmt.Errorf("%w: %s (`weir list` shows all)", ErrNoService, name)
	}
	return nil
}

// portIndex is that of the port with a name.
func (c *core) portIndex(name string) (int, error) {
	var names []string
	for _, p := range c.engine.Snapshot().Ports {
		names = append(names, p.Name)
	}
	if i := slices.Index(names, name); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("on %q: there is no such port (%s)", name, strings.Join(names, ", "))
}

// sink is where a capture or trace goes to.
type sink interface {
	// take writes an event, and returns how many packets that was.
	take(e *dataplane.Event, at time.Time) (packets uint64, err error)
	// end writes what there is to say at the end.
	end(shown, full, over uint64) error
}

// serveSight answers a request with what an observer sees, until the client goes, the time is over, or enough has been seen. It is by POST, so over
// TCP who has the token alone may ask: what packets carry is private.
func (c *Control) serveSight(contentType string, open func(w http.ResponseWriter, q *sightRequest) (sink, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := c.sightRequestOf(r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		id, ctx, done, err := c.sights.begin(r.Context())
		if err != nil {
			answer(w, nil, err)
			return
		}
		defer done()
		ctx, cancel := context.WithTimeout(ctx, q.duration)
		defer cancel()
		wall := time.Now().UnixNano() - dataplane.Monotonic()
		tap, err := c.engine.Tap(dataplane.TapOptions{Filter: q.filter, Snaplen: q.snaplen, PerSecond: q.rate, Slots: sightSlots,
			Until: dataplane.Monotonic() + int64(q.duration)})
		if err != nil {
			answer(w, nil, err)
			return
		}
		defer tap.Close()
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Weir-Sight", strconv.Itoa(id))
		h.Set("Trailer", "Weir-Shown, Weir-Missed")
		rc := http.NewResponseController(w)
		extend := func() { _ = rc.SetWriteDeadline(time.Now().Add(sightWrite)) }
		extend()
		to, err := open(w, &q)
		if err != nil || rc.Flush() != nil {
			return // the client went away
		}
		c.log.Info("observing", "path", r.URL.Path, "number", id, "filter", r.Form.Encode(), "for", q.duration)
		shown := uint64(0)
		read := func() {
			any := false
			tap.Read(func(e *dataplane.Event) bool {
				if !any {
					any = true
					extend()
				}
				var n uint64
				n, err = to.take(e, time.Unix(0, e.Time+wall))
				shown += n
				return err == nil && (q.count == 0 || shown < q.count)
			})
			if any && err == nil {
				err = rc.Flush()
			}
		}
		tick := time.NewTicker(sightPeriod)
		defer tick.Stop()
		for err == nil && ctx.Err() == nil && (q.count == 0 || shown < q.count) {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			read()
		}
		tap.Close()
		full, over := tap.Missed()
		c.log.Info("observed", "path", r.URL.Path, "number", id, "packets", shown, "missed", full+over)
		if err != nil || r.Context().Err() != nil {
			return
		}
		extend()
		if to.end(shown, full, over) == nil {
			h.Set("Weir-Shown", strconv.FormatUint(shown, 10))
			h.Set("Weir-Missed", missed(full, over))
		}
	}
}

// missed says how many events were not shown, and why: empty if none.
func missed(full, over uint64) string {
	var why []string
	if full > 0 {
		why = append(why, fmt.Sprintf("%d came faster than they could be written", full))
	}
	if over > 0 {
		why = append(why, fmt.Sprintf("%d beyond the rate", over))
	}
	if why == nil {
		return ""
	}
	return fmt.Sprintf("%d not captured: %s", full+over, strings.Join(why, ", "))
}

// endSight ends the capture or trace with a number.
func (c *Control) endSight(w http.ResponseWriter, r *http.Request) {
	id, err := numberOf("id", r.FormValue("id"), 1, 1<<40)
	if err == nil && !c.sights.end(id) {
		err = fmt.Errorf("there is no capture or trace %d", id)
	}
	answer(w, struct{}{}, err)
}
