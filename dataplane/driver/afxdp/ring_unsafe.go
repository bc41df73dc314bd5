package afxdp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// Sizes of ring entries: struct xdp_desc, and a chunk's address.
const (
	descSize = int(unsafe.Sizeof(packet.Desc{}))
	addrSize = int(unsafe.Sizeof(uint64(0)))
)

// ringLength is how many bytes of a ring must be mapped.
func ringLength(off unix.XDPRingOffset, entries, entrySize int) int {
	return int(off.Desc) + entries*entrySize
}

// sharedWords are the index and flag words in the mapped ring m.
func sharedWords(m []byte, off unix.XDPRingOffset) words {
	return words{
		producer: (*uint32)(unsafe.Pointer(&m[off.Producer])),
		consumer: (*uint32)(unsafe.Pointer(&m[off.Consumer])),
		flags:    (*uint32)(unsafe.Pointer(&m[off.Flags])),
	}
}

// descs are the entries of the mapped rx or tx ring m.
func descs(m []byte, off unix.XDPRingOffset, entries int) []packet.Desc {
	return unsafe.Slice((*packet.Desc)(unsafe.Pointer(&m[off.Desc])), entries)
}

// addrs are the entries of the mapped fill or completion ring m.
func addrs(m []byte, off unix.XDPRingOffset, entries int) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&m[off.Desc])), entries)
}
