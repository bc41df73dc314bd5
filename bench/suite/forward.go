package suite

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"weir/bench"
)

// Forward is the bare forwarder: what arrives on one device leaves by the other with new MAC addresses, and nothing else is looked at. It is the
// least that a balancer over these drivers can cost. It runs on one thread, on that CPU, until stop is set; ready is called when it works.
func Forward(a, b string, aMAC, bMAC string, cpu int, stop *atomic.Bool, ready func()) error {
	var next [2][6]byte
	for i, s := range []string{aMAC, bMAC} {
		hw, err := net.ParseMAC(s)
		if err != nil || len(hw) != 6 {
			return fmt.Errorf("MAC address %q: %w", s, errors.Join(err, errors.New("must be six bytes")))
		}
		next[i] = [6]byte(hw)
	}
	f, err := bench.NewForwarder([2]string{a, b}, next)
	if err != nil {
		return err
	}
	ready()
	return errors.Join(f.Run(cpu, stop), f.Close())
}
