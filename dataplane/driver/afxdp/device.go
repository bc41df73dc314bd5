package afxdp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// device is a network device by name. It answers from the namespace it was made in, whatever thread asks, allocates nothing when asked, and
// takes no lock of the kernel's that configuration holds for long.
type device struct {
	name    string
	index   int // of the device that the socket is, or was last, bound to
	control int // any socket carries the ioctls
	req     *unix.Ifreq
}

func newDevice(name string) (*device, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("interface name %q: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	d := &device{name: name, control: fd, req: req}
	if d.index, err = d.lookup(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func (d *device) close() {
	if d.control >= 0 {
		unix.Close(d.control)
		d.control = -1
	}
}

// lookup is the index of the device that has the name now.
func (d *device) lookup() (int, error) {
	if err := unix.IoctlIfreq(d.control, unix.SIOCGIFINDEX, d.req); err != nil {
		return 0, err
	}
	return int(d.req.Uint32()), nil
}

// gone reports whether the device that the socket is bound to does not exist any more, or another one has its name.
func (d *device) gone() bool {
	index, err := d.lookup()
	return err != nil || index != d.index
}

// flags are the IFF_ flags, 0 if there is no such device.
func (d *device) flags() uint16 {
	if err := unix.IoctlIfreq(d.control, unix.SIOCGIFFLAGS, d.req); err != nil {
		return 0
	}
	return d.req.Uint16()
}

// checkMTU refuses a device whose frames do not fit into room bytes of a chunk. The kernel would drop the longer ones one by one.
func (d *device) checkMTU(room int) error {
	if err := unix.IoctlIfreq(d.control, unix.SIOCGIFMTU, d.req); err != nil {
		return fmt.Errorf("%s: MTU: %w", d.name, err)
	}
	mtu := int(d.req.Uint32())
	switch {
	case mtu > maxMTU:
		return fmt.Errorf("%s: MTU %d: AF_XDP takes at most %d here (ip link set %s mtu %d)", d.name, mtu, maxMTU, d.name, maxMTU)
	case mtu+linkHeaders > room:
		return fmt.Errorf("%s: MTU %d: frames need chunks of 4096 bytes (or ip link set %s mtu %d)", d.name, mtu, d.name, room-linkHeaders)
	}
	return nil
}
