package vxlan

// Restore makes a station known as another process had learned it, where it was last seen then. It is control's, before any worker runs: it asks for
// room as Learn does, but not how many are new in a second. It reports false if mac is known already or there is no room.
func (t *FDB) Restore(segment uint16, mac MAC, at Place, seen Second) bool {
	if int(segment) >= len(t.segments) || !mac.station() || at == 0 || at&^placeMask != 0 {
		return false
	}
	k := keyOf(segment, mac)
	h := t.hash(k)
	t.lock.lock()
	defer t.lock.unlock()
	if i, _ := t.find(k, h); i >= 0 || t.room(&t.segments[segment]) != Known {
		return false
	}
	i := t.place(h)
	if i < 0 {
		return false
	}
	t.put(i, k, uint64(seen)<<seenShift|check(h)|uint64(at))
	return true
}
