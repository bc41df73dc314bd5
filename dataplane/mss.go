package dataplane

import (
	"weir/dataplane/packet"
	"weir/vxlan"
)

// TCP options (RFC 9293 3.2).
const (
	optionEnd = 0
	optionNOP = 1
	optionMSS = 2
)

// clampMSS lowers the maximum segment size that a SYN announces to what fits into IP packets of mtu bytes: hosts of an overlay often know only
// their own link's MTU, and not what the underlay takes off it. A SYN without the option stays as it is.
func clampMSS(f *packet.Frame, mtu int) {
	most := mtu - ipv4Len - tcpLen
	if f.Kind&packet.KindIPv6 != 0 {
		most = mtu - ipv6Len - tcpLen
	}
	t := f.Chunk()[f.L4:f.L3End]
	for o := t[tcpLen : int(t[12]>>4)*4]; len(o) > 0 && o[0] != optionEnd; {
		if o[0] == optionNOP {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		if o[0] == optionMSS && o[1] == 4 {
			if was := be16(o[2:]); most > 0 && int(was) > most {
				put16(o[2:], uint16(most))
				// The option may stand at an odd offset, where its bytes count for the other halves of two words.
				old, now := was, uint16(most)
				if (len(t)-len(o))&1 != 0 {
					old, now = old<<8|old>>8, now<<8|now>>8
				}
				put16(t[16:], packet.Update16(be16(t[16:]), old, now))
			}
			return
		}
		o = o[o[1]:]
	}
}

// clamp is clampMSS for a packet that goes into a segment or comes from one, or both: the smaller of the two holds, for the answers' segments come the
// same way.
func (w *Worker) clamp(f *packet.Frame, l *lane) {
	if f.Proto != packet.ProtoTCP || f.Flags&packet.TCPSyn == 0 || f.Kind&(fragment|packet.KindICMPError) != 0 {
		return
	}
	if s := w.at(l.into); s != nil && s.Clamp != vxlan.ClampNone {
		if l.station != 0 {
			clampMSS(f, int(l.routeMTU))
		} else {
			clampMSS(f, w.room(&lane{into: l.into}))
		}
	}
	if s := w.at(l.segment); s != nil && s.Clamp != vxlan.ClampNone {
		clampMSS(f, w.room(&lane{into: l.segment}))
	}
}
