package control

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"weir/dataplane"
	"weir/dataplane/packet"
	"weir/docs"
)

// TraceView is what became of one packet, and why. Missed alone is set in the last one of a stream.
type TraceView struct {
	Time    time.Time `json:"time,omitzero"`
	Worker  int       `json:"worker"`
	Number  uint64    `json:"number,omitempty"` // of the worker's; that of all that one frame led to
	Event   string    `json:"event,omitempty"`  // received, waited (for a neighbor, or its first fragment) or also (one more frame left)
	Frame   *HopView  `json:"frame,omitempty"`
	VNI     uint32    `json:"vni,omitempty"` // of the segment that the packet is in
	Steered string    `json:"steered,omitempty"`

	Service    string        `json:"service,omitempty"`
	VIP        bool          `json:"vip,omitempty"` // it is to a VIP
	Scheduler  string        `json:"scheduler,omitempty"`
	Connection *TraceConn    `json:"connection,omitempty"`
	Backend    *TraceBackend `json:"backend,omitempty"`
	NextHop    *TraceHop     `json:"next_hop,omitempty"`
	Sent       *HopView      `json:"sent,omitempty"`
	Unseen     int           `json:"unseen,omitempty"` // frames that left for it and are not shown
	Verdict    string        `json:"verdict,omitempty"`
	Drop       string        `json:"drop,omitempty"`
	Why        string        `json:"why,omitempty"` // of the drop
	Missed     string        `json:"missed,omitempty"`
}

// HopView is a frame at a port.
type HopView struct {
	Port   string `json:"port"`
	Bytes  int    `json:"bytes"`
	Own    bool   `json:"own,omitempty"` // made by weir: an answer, a fragment, a copy
	Packet string `json:"packet"`        // in words
}

// TraceConn is the packet's connection.
type TraceConn struct {
	Fate    string         `json:"fate"` // known, new, reopened or one_packet
	Way     string         `json:"way"`  // client: it came from there; server
	Related bool           `json:"related,omitempty"`
	Client  netip.AddrPort `json:"client"`
	Virtual netip.AddrPort `json:"virtual"`
	Was     string         `json:"was,omitempty"` // the state before, if another
	State   string         `json:"state"`
	Sticks  bool           `json:"sticks,omitempty"` // the client had a persistence template
}

// TraceBackend is the packet's server, with its load now, this connection included.
type TraceBackend struct {
	Name     string     `json:"name"`
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	VNI      uint32     `json:"vni,omitempty"`
	Forward  string     `json:"forward"`
	Weight   int32      `json:"weight"`
	Active   int        `json:"active"`
	Inactive int        `json:"inactive"`
}

// TraceHop is where the packet goes next.
type TraceHop struct {
	Port    string     `json:"port"`
	Address netip.Addr `json:"address"`
	Known   bool       `json:"known"` // its MAC address is
}

var eventNames = [...]string{dataplane.EventReceived: "received", dataplane.EventWaited: "waited", dataplane.EventAlso: "also"}

var connFates = [...]string{dataplane.ConnKnown: "known", dataplane.ConnNew: "new", dataplane.ConnReopen: "reopened", dataplane.ConnOnce: "one_packet"}

// words makes views of events. It is one stream's.
type words struct {
	core  *core
	pool  *packet.Pool      // of one chunk, to parse in
	drops map[string]string // what each reason means
}

func newWords(c *core) *words {
	pool, err := packet.NewPool(make([]byte, 4096), 4096)
	if err != nil {
		panic(err) // one chunk of 4096 bytes is a pool
	}
	return &words{c, pool, docs.Drops()}
}

// view tells an event in words.
func (x *words) view(e *dataplane.Event, at time.Time) *TraceView {
	v := &TraceView{Time: at, Worker: e.Worker, Number: e.Number, Event: eventNames[e.Kind], VNI: e.VNI, VIP: e.VIP, Unseen: e.Unseen, Verdict: e.Verdict.String()}
	if e.Kind != dataplane.EventAlso {
		v.Frame = x.hop(e, &e.Frame)
	}
	if e.Sent.Port >= 0 {
		v.Sent = x.hop(e, &e.Sent)
	}
	if e.Ruled {
		v.Steered = e.Steered.String()
	}
	if e.Verdict == dataplane.Dropped {
		v.Drop = e.Drop.String()
		v.Why = x.drops[v.Drop]
	}
	if e.Verdict == dataplane.Pending {
		if v.Verdict = "lost"; v.Sent != nil {
			v.Verdict = "sent"
		}
	}
	if s := e.Service; s != nil {
		v.Service, v.Scheduler = s.Name, s.Plan.Scheduler()
	}
	if e.Conn != dataplane.ConnNone {
		c := &TraceConn{Fate: connFates[e.Conn], Way: "client", Related: e.Related, State: e.Is.String(), Sticks: e.Sticks,
			Client:  netip.AddrPortFrom(dataplane.NetipOf(e.Client.Addr, e.Client.V6), e.Client.Port),
			Virtual: netip.AddrPortFrom(dataplane.NetipOf(e.Virtual.Addr, e.Virtual.V6), e.Virtual.Port)}
		if e.Reply {
			c.Way = "server"
		}
		if e.Conn == dataplane.ConnKnown && e.Was != e.Is {
			c.Was = e.Was.String()
		}
		v.Connection = c
	}
	if b := e.Backend; b != nil {
		v.Backend = &TraceBackend{Address: dataplane.NetipOf(b.Addr, b.V6), Port: b.Port, VNI: b.VNI, Forward: b.Forward.String(), Weight: b.Weight, Active: e.Active, Inactive: e.Inact}
		x.core.mu.Lock()
		if of := x.core.bearer(e.ID); of != nil {
			v.Backend.Name = of.name
		}
		x.core.mu.Unlock()
	}
	if e.OutPort >= 0 {
		v.NextHop = &TraceHop{Port: portName(e.Snapshot, e.OutPort), Address: dataplane.NetipOf(e.Hop, e.HopV6), Known: e.Known}
	}
	return v
}

func portName(s *dataplane.Snapshot, i int) string {
	if i >= 0 && i < len(s.Ports) {
		return s.Ports[i].Name
	}
	return "?"
}

func (x *words) hop(e *dataplane.Event, i *dataplane.Image) *HopView {
	return &HopView{Port: portName(e.Snapshot, i.Port), Bytes: i.Len, Own: i.Own, Packet: x.describe(e.Snapshot, i)}
}

// describe is a frame's packet in words: 198.18.128.7:4000 > 198.18.9.9:80 tcp SYN ttl 64. What a tunnel of ours carries stands behind it.
func (x *words) describe(s *dataplane.Snapshot, i *dataplane.Image) string {
	copy(x.pool.Memory(), i.Data)
	var f packet.Frame
	if !f.Open(x.pool, packet.Desc{Len: uint32(min(len(i.Data), 4096))}) {
		return "nothing"
	}
	fault := packet.Parse(&f)
	text := headers(&f, fault)
	if o := s.Overlay; fault == packet.FaultNone && o != nil && f.Proto == packet.ProtoUDP && f.Kind&packet.KindTransport != 0 {
		for _, port := range o.EndPorts {
			if udp := f.Chunk()[f.L4:f.L3End]; port == f.DstPort && len(udp) >= 16+14 {
				vni := uint32(udp[12])<<16 | uint32(udp[13])<<8 | uint32(udp[14])
				f.Start, f.End, f.Headers = f.L4+16, f.L3End, packet.Headers{}
				fault = packet.Parse(&f)
				return fmt.Sprintf("%s, vxlan %d: %s", text, vni, headers(&f, fault))
			}
		}
	}
	return text
}

func headers(f *packet.Frame, fault packet.Fault) string {
	var b strings.Builder
	if f.VLAN != 0 {
		fmt.Fprintf(&b, "vlan %d ", f.VLAN)
	}
	h := f.Chunk()[f.L3:]
	switch {
	case f.Kind&packet.KindIPv4 != 0 && len(h) >= 20:
		ends(&b, f, netip.AddrFrom4([4]byte(h[12:16])), netip.AddrFrom4([4]byte(h[16:20])))
	case f.Kind&packet.KindIPv6 != 0 && len(h) >= 40:
		ends(&b, f, netip.AddrFrom16([16]byte(h[8:24])), netip.AddrFrom16([16]byte(h[24:40])))
	case f.EtherType == packet.EtherTypeARP:
		b.WriteString("arp")
		return b.String()
	default:
		fmt.Fprintf(&b, "ethernet type %#04x", f.EtherType)
		return b.String()
	}
	if fault != packet.FaultNone {
		b.WriteString(" (malformed)")
		return b.String()
	}
	fmt.Fprintf(&b, " ttl %d", f.TTL)
	return b.String()
}

// ends writes addresses, ports, protocol and flags.
func ends(b *strings.Builder, f *packet.Frame, src, dst netip.Addr) {
	whole := f.Kind&packet.KindTransport != 0
	name := protocolText(f.Proto)
	switch {
	case whole && (f.Proto == packet.ProtoTCP || f.Proto == packet.ProtoUDP || f.Proto == packet.ProtoSCTP):
		fmt.Fprintf(b, "%s > %s %s", netip.AddrPortFrom(src, f.SrcPort), netip.AddrPortFrom(dst, f.DstPort), name)
	default:
		fmt.Fprintf(b, "%s > %s %s", src, dst, name)
	}
	if whole && f.Proto == packet.ProtoTCP {
		for i, flag := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
			if f.Flags&(1<<i) != 0 {
				b.WriteString(" " + flag)
			}
		}
	}
	if whole && (f.Proto == packet.ProtoICMP || f.Proto == packet.ProtoICMPv6) {
		fmt.Fprintf(b, " type %d code %d", f.ICMPType, f.ICMPCode)
	}
	if f.Kind&(packet.KindFirstFragment|packet.KindLaterFragment) != 0 {
		fmt.Fprintf(b, " fragment at %d", f.FragmentOff)
	}
}

func protocolText(p uint8) string {
	for name, n := range sightProtocols {
		if n == p {
			return name
		}
	}
	switch p {
	case packet.ProtoIPIP:
		return "ipip"
	case packet.ProtoIPv6:
		return "ipv6"
	}
	return fmt.Sprintf("protocol %d", p)
}

// traced writes one JSON object a line.
type traced struct {
	words *words
	out   *json.Encoder
}

func (c *Control) openTrace(w http.ResponseWriter, _ *sightRequest) (sink, error) {
	return newTraced(c.core, w), nil
}

func newTraced(c *core, w io.Writer) *traced {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false) // packets have a > in them
	return &traced{newWords(c), out}
}

func (t *traced) take(e *dataplane.Event, at time.Time) (uint64, error) {
	n := uint64(1)
	if e.Kind == dataplane.EventAlso {
		n = 0
	}
	return n, t.out.Encode(t.words.view(e, at))
}

func (t *traced) end(_, full, over uint64) error {
	if full+over == 0 {
		return nil
	}
	return t.out.Encode(TraceView{Missed: missed(full, over)})
}
