package main_test

import (
	"testing"

	"weir/control/host/testnet"
)

// overlays are the segments of a bed: both families outside and inside, ports in two of them.
func overlays() []*overlay {
	return []*overlay{
		{vni: 5001, access: make([]*testnet.Space, 2)},
		{vni: 5002, gate6: true},
		{vni: 6001, over6: true},
		{vni: 6002, over6: true, gate6: true, access: make([]*testnet.Space, 1)},
	}
}

// TestVXLANBed has the kernel in the balancer's place: what is wanted of segments is what the kernel does.
func TestVXLANBed(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, overlays()...)
	b.kernelEnd(t)
	bridging(t, b)
}
