package conntrack

import "unsafe"

// address is where the memory begins.
func (m *memory) address() uintptr { return uintptr(unsafe.Pointer(&m.base[0])) }
