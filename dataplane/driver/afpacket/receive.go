package afpacket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// Layout of a slot; see [rxRing.header].
const (
	slotAddress  = 32               // of struct sockaddr_ll
	slotType     = slotAddress + 10 // sll_pkttype
	slotVNet     = slotAddress + 20 // the lowest place of struct virtio_net_hdr
	vnetBytes    = 10               // of it
	slotHead     = 76               // of the frame, with an Ethernet header of 14 bytes: 32 + 20 + 16 aligned to 16, + 10, - 14
	packetOutgo  = unix.PACKET_OUTGOING
	needsSum     = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	notSegmented = 0 // VIRTIO_NET_HDR_GSO_NONE
)

// rxRing is the receive ring as we see it. Its zero value is a ring that never has a frame.
type rxRing struct {
	mem  []byte // shared with the kernel
	size int    // of a slot in bytes
	mask uint32 // number of slots - 1
	next uint32 // the slot that is filled next, & mask
	room uint32 // the longest frame in bytes, without a tag that was put aside
}

func newRxRing(mem []byte, slot, room int) rxRing {
	return rxRing{mem: mem, size: slot, mask: uint32(len(mem)/slot - 1), room: uint32(room)}
}

// waiting is how many frames are in the ring.
func (r *rxRing) waiting() (n uint64) {
	for slots := uint64(len(r.mem) / max(r.size, 1)); n < slots; n++ {
		slot := r.mem[int((r.next+uint32(n))&r.mask)*r.size:][:r.size]
		if status(r.header(slot))&unix.TP_STATUS_USER == 0 {
			break
		}
	}
	return n
}

// Receive implements [driver.Queue]. Frames for which the pool has no chunk wait in the ring.
func (q *Queue) Receive(d []packet.Desc) int {
	r := &q.rx
	if len(r.mem) == 0 {
		return 0
	}
	n := 0
	for left := r.mask + 1; n < len(d) && left > 0; left-- { // once around at most, when all are dropped
		slot := r.mem[int(r.next&r.mask)*r.size:][:r.size]
		h := r.header(slot)
		s := status(h)
		if s&unix.TP_STATUS_USER == 0 {
			break
		}
		chunk, ok := q.pool.Get()
		if !ok {
			break
		}
		at := chunk + packet.Headroom
		if length := q.restore(q.pool.Memory()[at:chunk+uint64(q.pool.ChunkSize())], slot, s, h); length > 0 {
			d[n] = packet.Desc{Addr: at, Len: uint32(length)}
			n++
		} else {
			q.pool.Put(chunk)
		}
		release(h)
		r.next++
	}
	if n > 0 {
		q.idle = false
		q.counter.received.Add(uint64(n))
	}
	return n
}

// restore copies the frame of a slot into to, as it was or would be on the wire, and returns its length; 0 and one counter more if it
// cannot be.
func (q *Queue) restore(to, slot []byte, s uint32, h *unix.Tpacket2Hdr) int {
	c := &q.counter
	mac, length := int(h.Mac), int(h.Snaplen)
	if mac < slotVNet+vnetBytes || mac > len(slot) {
		c.inconsistent.Add(1)
		return 0
	}
	vnet := slot[mac-vnetBytes : mac : mac] // flags, gso_type, hdr_len 2, gso_size 2, csum_start 2, csum_offset 2
	tag := 0
	if s&unix.TP_STATUS_VLAN_VALID != 0 {
		tag = vlanTag
	}
	switch {
	case slot[slotType] == packetOutgo:
		c.outgoing.Add(1)
		return 0
	case vnet[1] != notSegmented:
		c.merged.Add(1)
		return 0
	case h.Len > q.rx.room || length+tag > len(to):
		c.tooLong.Add(1)
		return 0
	case h.Len != h.Snaplen || length < ethernetHeader || mac+length > len(slot):
		c.inconsistent.Add(1)
		return 0
	}
	frame := slot[mac : mac+length]
	if tag == 0 {
		copy(to, frame)
	} else {
		tpid := uint16(packet.EtherTypeVLAN)
		if s&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = h.Vlan_tpid
		}
		copy(to, frame[:12])
		binary.BigEndian.PutUint16(to[12:], tpid)
		binary.BigEndian.PutUint16(to[14:], h.Vlan_tci)
		copy(to[16:], frame[12:])
	}
	to = to[:length+tag]
	if vnet[0]&needsSum != 0 {
		start := int(binary.NativeEndian.Uint16(vnet[6:])) + tag
		if !finishChecksum(to, start, int(binary.NativeEndian.Uint16(vnet[8:]))) {
			c.inconsistent.Add(1)
			return 0
		}
		c.summed.Add(1)
	}
	return len(to)
}
