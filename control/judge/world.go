package judge

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// world is what clients, servers and routers know while a script is played: where each flow went, and the packets they got.
type world struct {
	script *Script
	flows  []flowState
	id     uint16 // IPv4 identification of the latest packet
	// twofold are servers that are reached by tunnels of two kinds.
	twofold map[netip.Addr]bool
}

type flowState struct {
	client, vip netip.AddrPort
	server      netip.AddrPort // where the kernel sent the client; invalid before that, and where only the MAC address tells
	last        [2][]byte      // the latest packet that came out on each side
	seq         uint32
	alive       bool // opened, and no time has passed since
	ending      bool // a FIN, a RST or nonsense has been seen since
}

func newWorld(s *Script) (*world, error) {
	w := &world{script: s, flows: make([]flowState, len(s.Flows))}
	for i, f := range s.Flows {
		client, err := netip.ParseAddr(f.Client)
		if err != nil {
			return nil, err
		}
		vip, err := netip.ParseAddr(f.VIP)
		if err != nil {
			return nil, err
		}
		w.flows[i] = flowState{client: netip.AddrPortFrom(client, uint16(f.Port)), vip: netip.AddrPortFrom(vip, uint16(f.VPort)), seq: uint32(i) << 20}
	}
	w.twofold = s.twofold()
	return w, nil
}

// packets are what the operation sends, nil if it makes no sense now.
func (w *world) packets(o *Op) [][]byte {
	packets := w.make(o)
	for _, ip := range packets {
		if len(ip) > (&Recording{MTU: w.script.MTU}).mtu(o.Side) {
			return nil // no link carries it
		}
	}
	return packets
}

func (w *world) make(o *Op) [][]byte {
	f := &w.flows[o.Flow]
	if o.Alive && (!f.alive || o.Flags&flagSYN != 0 && f.ending) {
		return nil
	}
	switch o.Do {
	case DoPacket:
		return w.packet(o, f)
	case DoError:
		return w.complaint(o, f)
	case DoEcho:
		w.id++
		return [][]byte{pkttest.Echo(f.client.Addr(), f.vip.Addr(), uint16(o.Flow), w.id).ID(w.id).Payload(pattern(o.Data)).Bytes()}
	}
	return nil
}

// packet is one of the flow.
func (w *world) packet(o *Op, f *flowState) [][]byte {
	src, dst := f.client, f.vip
	if o.Side == Server {
		if !f.server.IsValid() {
			return nil
		}
		src, dst = f.server, f.client
	}
	if o.Spoil == "tiny" && !f.server.IsValid() {
		return nil // what changes no port takes less of a header than weir does: see docs/ipvs.md
	}
	w.id++
	f.seq++
	var p pkttest.Packet
	switch w.script.Flows[o.Flow].Protocol {
	case "tcp":
		p = pkttest.TCP(src, dst).Seq(f.seq)
		if o.Flags&0x10 != 0 {
			p = p.Ack(f.seq + 7)
		}
		p = p.Flags(uint8(o.Flags)).Payload(pattern(o.Data))
	case "sctp":
		p = pkttest.SCTP(src, dst).VTag(f.seq)
		p = p.Chunk(uint8(o.Flags), 0, pattern(o.Data))
		if o.Spoil == "abort" {
			p = p.Chunk(chunkAbort, 0, nil)
		}
	default:
		p = pkttest.UDP(src, dst).Payload(pattern(o.Data))
		if o.Spoil == "nosum" && src.Addr().Is4() {
			p = p.NoChecksum()
		}
	}
	p = p.ID(w.id).TOS(uint8(o.TOS))
	if o.TTL != nil {
		p = p.TTL(uint8(*o.TTL))
	}
	if o.DF && src.Addr().Is4() && len(o.Cut) == 0 {
		p = p.DF()
	}
	if options := ipOptions[o.Spoil]; options != nil && src.Addr().Is4() {
		p = p.Options(options...)
	}
	if len(o.Cut) > 0 {
		pieces := p.Cut(uint32(w.id), o.Cut...)
		if o.Reverse {
			slices.Reverse(pieces)
		}
		return pieces
	}
	ip := p.Bytes()
	if w.script.Flows[o.Flow].Protocol == "sctp" {
		sealSCTP(ip)
	}
	return [][]byte{spoil(ip, o.Spoil)}
}

// again reports whether the operation asks for a new connection where there was one: the kernel then ends the old one by its timer.
func (w *world) again(o *Op) bool {
	f := &w.flows[o.Flow]
	if o.Do != DoPacket || o.Side != Client || f.last[Server] == nil {
		return false
	}
	switch w.script.Flows[o.Flow].Protocol {
	case "tcp":
		return o.Flags&flagSYN != 0
	case "sctp":
		return o.Flags == chunkInit
	}
	return false
}

// saw takes note of what came out of the step that sent in.
func (w *world) saw(o *Op, in []byte, out []Output) {
	if o.Do == DoEcho || o.Do == DoError {
		return
	}
	f, forwarded := &w.flows[o.Flow], false
	for _, x := range out {
		h, err := headersOf(x.IP)
		if err != nil || h.proto == packet.ProtoICMP || h.proto == packet.ProtoICMPv6 {
			continue
		}
		if x.Side == o.Side {
			continue // answered by the balancer
		}
		f.last[x.Side] = x.IP
		if x.Side == Server && h.src == f.client.Addr() && h.dst != f.vip.Addr() && len(h.payload) >= 4 && datagramOffset(x.IP) == 0 {
			payload := h.payload
			if h.proto == 44 && len(payload) >= 12 {
				payload = payload[8:]
			}
			f.server = netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(payload[2:]))
		}
		forwarded = true
	}
	if o.Side == Client && o.Flags == flagSYN {
		f.ending = false
	} else if o.Flags&(flagFIN|flagRST) != 0 || o.Flags == 0 {
		f.ending = true
	}
	if o.Side == Client {
		f.alive = forwarded && (f.alive || o.Flags&0x3f == flagSYN || w.script.Flows[o.Flow].Protocol != "tcp")
	}
}

// passed says that time went by, or an edit was made: whether connections still live is not known any more.
func (w *world) passed() {
	for i := range w.flows {
		w.flows[i].alive = false
	}
}

// recorded is an output as the recording has it, after in was sent by the other or the same side.
func recorded(o Output, from int, in []byte) Packet {
	p := Packet{Side: sides[o.Side], Packet: hex.EncodeToString(o.IP)}
	_, proto := checksumAt(o.IP)
	_, was := checksumAt(in)
	sameSize := len(o.IP) == lengthOf(in) || datagram(in) != "" || datagram(o.IP) != "" // not put into a tunnel
	p.Exact = o.Side != from && proto == was && sameSize && proto != packet.ProtoICMP && proto != packet.ProtoICMPv6
	if o.Side == Server {
		p.MAC = o.MAC
	}
	return p
}
