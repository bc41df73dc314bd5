package sched

// destinationHash takes the destination that the address the client asked for hashes to, or none if that one is unusable (ip_vs_dh.c). The
// kernel deals its 256 buckets to the destinations in turns, one each, whatever their weight: a bucket's owner is its number modulo theirs.
func (p *Plan) destinationHash(f *Flow) int {
	if len(p.dests) == 0 {
		return -1
	}
	i := int(serverBucket(f)) % len(p.dests)
	if !p.dests[i].usable() {
		return -1
	}
	return i
}

// serverBucket is the bucket that the address the client asked for hashes to.
func serverBucket(f *Flow) uint8 { return uint8(hash32(fold(&f.Dst, f.V6), 8)) }

// hash32 is the kernel's hash_32: the upper bits of the product with the golden ratio.
func hash32(v uint32, bits int) uint32 { return v * 0x61c88647 >> (32 - bits) }
