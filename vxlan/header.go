package vxlan

import "encoding/binary"

// The VXLAN header (RFC 7348 section 5). I says that the VNI is valid; all that is R or reserved is sent as zero and ignored on receipt.
//
//	0                   1                   2                   3
//	0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	|R|R|R|R|I|R|R|R|                  reserved                     |
//	|                     VNI                       |   reserved    |
const (
	headerLen = 8
	flagI     = 0x08 << 24 // of the first word
	vniShift  = 8          // of the second word

	// MaxVNI is the largest VNI, of 24 bits.
	MaxVNI = 1<<24 - 1

	// Port is the UDP port that IANA assigned. Linux takes 8472 unless told otherwise.
	Port = 4789
)

// Lengths in bytes.
const (
	etherLen = 14
	tagLen   = 4
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8
)

// Overhead4 and Overhead6 are what a tunnel over IPv4 or IPv6 adds to a frame, in bytes. They are also by how much a segment's MTU is
// smaller than its underlay's: the outer Ethernet header is as long as the inner one.
const (
	Overhead4 = etherLen + ipv4Len + udpLen + headerLen
	Overhead6 = etherLen + ipv6Len + udpLen + headerLen
)

// readHeader returns the VNI of a received header of at least 8 bytes. strict refuses what RFC 7348 wants ignored, as Linux and VPP do.
func readHeader(h []byte, strict bool) (vni uint32, fault Fault) {
	flags, id := binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:])
	switch {
	case flags&flagI == 0:
		return 0, FaultFlags
	case strict && (flags != flagI || id&(1<<vniShift-1) != 0):
		return id >> vniShift, FaultReserved
	}
	return id >> vniShift, FaultNone
}

// putHeader writes the header of vni.
func putHeader(h []byte, vni uint32) {
	binary.BigEndian.PutUint32(h, flagI)
	binary.BigEndian.PutUint32(h[4:], vni<<vniShift)
}
