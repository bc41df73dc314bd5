package steer

import (
	"fmt"
	"maps"
	"slices"
)

// maxNets is how many prefixes there can be: what a value in nets has bits for.
const maxNets = 1 << (32 - slotShift)

// numbers are what the program knows devices and prefixes by. A number is free again when no table bears it.
type numbers struct {
	devices int
	slots   map[int]uint32    // device -> its slot in the socket map
	nets    map[string]uint32 // prefix, by its key in nets -> what stands for it in the keys of its ports
	free    []uint32          // numbers below next that no prefix has
	next    uint32
}

func newNumbers(o Options) numbers {
	return numbers{devices: o.Devices, slots: map[int]uint32{}, nets: map[string]uint32{}}
}

func (n *numbers) clone() numbers {
	c := *n
	c.slots, c.nets, c.free = maps.Clone(n.slots), maps.Clone(n.nets), slices.Clone(n.free)
	return c
}

// slot is the device's; a new device gets a free one.
func (n *numbers) slot(ifindex int) (uint32, error) {
	if s, ok := n.slots[ifindex]; ok {
		return s, nil
	}
	used := map[uint32]bool{}
	for _, s := range n.slots {
		used[s] = true
	}
	for s := range uint32(n.devices) {
		if !used[s] {
			n.slots[ifindex] = s
			return s, nil
		}
	}
	return 0, fmt.Errorf("steer: ifindex %d: more than %d devices", ifindex, n.devices)
}

// net is the prefix's; a new prefix gets a free one.
func (n *numbers) net(key string) (uint32, error) {
	if s, ok := n.nets[key]; ok {
		return s, nil
	}
	s := n.next
	switch last := len(n.free) - 1; {
	case last >= 0:
		s, n.free = n.free[last], n.free[:last]
	case n.next == maxNets:
		return 0, fmt.Errorf("steer: more than %d prefixes", maxNets)
	default:
		n.next++
	}
	n.nets[key] = s
	return s, nil
}

// keep forgets the prefixes that the table of nets does not hold, and learns those that it does.
func (n *numbers) keep(held listing) {
	clear(n.nets)
	used := map[uint32]bool{}
	n.next = 0
	for _, e := range held {
		s := e.value >> slotShift
		n.nets[string(e.key[:tables[tableNets].keySize])], used[s] = s, true
		n.next = max(n.next, s+1)
	}
	n.free = n.free[:0]
	for s := range n.next {
		if !used[s] {
			n.free = append(n.free, s)
		}
	}
}
