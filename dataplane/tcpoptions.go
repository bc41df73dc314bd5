package dataplane

import "weir/dataplane/packet"

// More TCP options (RFC 7323, RFC 2018); those of mss.go are beside them.
const (
	optionScale       = 3
	optionSACKAllowed = 4
	optionSACK        = 5
	optionStamps      = 8

	stampsLen = 10
	maxScale  = 14 // RFC 7323 section 2.3
)

// tcpOptions are those of a segment that matter to us.
type tcpOptions struct {
	mss     uint16 // 0: not there
	scale   uint8  // valid if scaled
	scaled  bool
	sack    bool // SACK permitted
	stamped bool
	stamp   uint32 // valid if stamped, as is
	echo    uint32
}

// read reads the options of the TCP header t. What contradicts itself ends them, as with hosts.
func (x *tcpOptions) read(t []byte) {
	*x = tcpOptions{}
	for o := t[tcpLen : int(t[12]>>4)*4]; len(o) > 0 && o[0] != optionEnd; {
		if o[0] == optionNOP {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		switch n := o[1]; {
		case o[0] == optionMSS && n == 4:
			x.mss = be16(o[2:])
		case o[0] == optionScale && n == 3:
			x.scale, x.scaled = min(o[2], maxScale), true
		case o[0] == optionSACKAllowed && n == 2:
			x.sack = true
		case o[0] == optionStamps && n == stampsLen:
			x.stamped, x.stamp, x.echo = true, be32(o[2:]), be32(o[6:])
		}
		o = o[o[1]:]
	}
}

// offers writes the options of a SYN or SYN+ACK into s, in Linux' order: MSS, SACK permitted and timestamps, window scale.
func offers(s *packet.Segment, mss uint16, x offer, scale uint8, stamp, echo uint32) {
	b := &s.Options
	b[0], b[1] = optionMSS, 4
	put16(b[2:], mss)
	n := uint8(4)
	switch {
	case x&offerStamps != 0 && x&offerSACK != 0:
		b[n], b[n+1] = optionSACKAllowed, 2
		stamps(b[n+2:], stamp, echo)
		n += 12
	case x&offerStamps != 0:
		b[n], b[n+1] = optionNOP, optionNOP
		stamps(b[n+2:], stamp, echo)
		n += 12
	case x&offerSACK != 0:
		b[n], b[n+1], b[n+2], b[n+3] = optionNOP, optionNOP, optionSACKAllowed, 2
		n += 4
	}
	if _, scaled := x.scale(); scaled {
		b[n], b[n+1], b[n+2], b[n+3] = optionNOP, optionScale, 3, scale
		n += 4
	}
	s.OptionBytes = n
}

func stamps(b []byte, stamp, echo uint32) {
	b = b[:stampsLen]
	b[0], b[1] = optionStamps, stampsLen
	put32(b[2:], stamp)
	put32(b[6:], echo)
}

// stampOnly writes the timestamps of a segment that is no SYN into s.
func stampOnly(s *packet.Segment, stamp, echo uint32) {
	s.Options[0], s.Options[1] = optionNOP, optionNOP
	stamps(s.Options[2:], stamp, echo)
	s.OptionBytes = 12
}
