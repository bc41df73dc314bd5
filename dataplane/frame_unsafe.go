package dataplane

import "unsafe"

// windowAt is the bytes around the IP packet at addr in frame memory, for frames of which glance has found that all of them lie within their
// chunk. A slice would be checked against the memory's length twice more for each packet, once when glance reads and once when dispatch writes: 1 of 35 ns.
func windowAt(mem []byte, addr uint64) *[window]byte {
	return (*[window]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(mem)), addr-windowFront))
}

// windowAt6 is windowAt for an IPv6 packet, of a frame that glance6 has found so of.
func windowAt6(mem []byte, addr uint64) *[window6]byte {
	return (*[window6]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(mem)), addr-windowFront))
}

// headAt is the headLen bytes in front of the IPv4 packet at addr, which the caller has found to lie within its chunk, and that packet's ECN.
func headAt(mem []byte, addr uint64) (head *[headLen]byte, ecn uint8) {
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return (*[headLen]byte)(unsafe.Add(base, addr-headLen)), *(*uint8)(unsafe.Add(base, addr+1)) & 3
}
