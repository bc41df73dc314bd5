package vxlan

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
)

// key is the secret of a keyed hash: whoever only chooses addresses can aim neither at one path of the underlay nor at one place of a
// table.
type key [4]uint64

func newKey(secret [2]uint64) key {
	// wyhash's constants spread the two secret words over four keys, so that no key is zero because the secret is.
	return key{
		mum(secret[0]^0xa0761d6478bd642f, secret[1]^0xe7037ed1a0b428db),
		mum(secret[0]^0x8ebc6af09c88c6e3, secret[1]^0x589965cc75374cc3),
		mum(secret[1]^0xa0761d6478bd642f, secret[0]^0x8ebc6af09c88c6e3) ^ secret[0],
		mum(secret[1]^0xe7037ed1a0b428db, secret[0]^0x589965cc75374cc3) ^ secret[1],
	}
}

// mum folds the 128-bit product of a and b to 64 bits (wyhash).
func mum(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// two hashes two words. Both halves of the first product go into the second: to fold them before would let inputs collide whatever the key.
func (k *key) two(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^k[0], b^k[1])
	return mum(lo^k[2], hi^k[3])
}

// Entropy hashes flows, for the source ports of tunnels.
type Entropy struct{ key key }

// NewEntropy makes a hash from a secret that is drawn once per boot.
func NewEntropy(secret [2]uint64) Entropy { return Entropy{newKey(secret)} }

// Of is the hash of the inner frame f, as Parse found it: the same for each packet of a flow, in one direction. What tells flows apart is
//
//	TCP, UDP, SCTP, echo     addresses, protocol, ports or identifier
//	other IP                 addresses and protocol
//	fragments                addresses and protocol, of IPv6 addresses alone: later fragments name the first header behind the
//	                         fragment header, which need not be the transport's
//	not IP                   MAC addresses and Ethernet type
//
// Addresses are read from the frame, ports from Headers. So a flow whose packets are translated keeps one value if all of its packets
// are hashed before, or all after.
func (e *Entropy) Of(f *packet.Frame) uint32 {
	ports := uint64(f.SrcPort)<<16 | uint64(f.DstPort)
	const transport, fragment = packet.KindTransport, packet.KindFirstFragment | packet.KindLaterFragment
	if f.Kind&(transport|fragment) != transport {
		ports = 0
	}
	h := f.Chunk()[f.L3:]
	var sum uint64
	switch {
	case f.Kind&packet.KindIPv4 != 0:
		return e.Of4(binary.BigEndian.Uint64(h[12:]), uint32(ports), f.Proto)
	case f.Kind&packet.KindIPv6 != 0:
		proto := uint64(f.Proto)
		if f.Kind&fragment != 0 {
			proto = 0
		}
		src := e.key.two(binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[16:]))
		dst := e.key.two(binary.BigEndian.Uint64(h[24:]), binary.BigEndian.Uint64(h[32:])^src)
		sum = e.key.two(src+bits.RotateLeft64(dst, 32), ports<<8|proto)
	default:
		b := f.Bytes()
		sum = e.key.two(uint64(MACOf(b)), uint64(MACOf(b[6:]))<<16|uint64(f.EtherType))
	}
	return uint32(sum >> 32)
}

// Of4 is Of for IPv4: the two addresses of the header, the ports, zero where they do not count, and the protocol.
func (e *Entropy) Of4(addresses uint64, ports uint32, proto uint8) uint32 {
	return uint32(e.key.two(addresses, uint64(ports)<<8|uint64(proto)) >> 32)
}
