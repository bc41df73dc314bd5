package host

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VTEP is a vxlan device of the kernel's.
type VTEP struct {
	Name string
	VNI  uint32
	Port uint16 // UDP, that it listens on
}

// VTEPs are the vxlan devices of the namespace.
func (h *Host) VTEPs() (all []VTEP, err error) {
	err = h.dump(unix.RTM_GETLINK, func() { all = nil }, func(msg []byte) {
		if len(msg) < unix.SizeofIfInfomsg || msg[0] != unix.AF_UNSPEC {
			return
		}
		n, err := netlink.LinkDeserialize(nil, msg)
		if v, ok := n.(*netlink.Vxlan); err == nil && ok {
			all = append(all, VTEP{v.Name, uint32(v.VxlanId), uint16(v.Port)})
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	return all, fail("RTM_GETLINK", "vxlan", err)
}

// XDP is the program that stands in front of a device: its number, 0 for none, and whether it is run on socket buffers, behind the driver.
func (h *Host) XDP(name string) (id uint32, generic bool, err error) {
	err = h.in(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fail("RTM_GETLINK", name, err)
		}
		if x := l.Attrs().Xdp; x != nil && x.Attached {
			id, generic = x.ProgId, x.AttachMode == nl.XDP_ATTACHED_SKB
		}
		return nil
	})
	return id, generic, err
}

// behindXDP are the devices, by their indices, that an XDP program stands in front of, and their VLANs.
func (h *Host) behindXDP() (map[int]bool, error) {
	var all map[int]bool
	var vlans []*netlink.Vlan
	err := h.dump(unix.RTM_GETLINK, func() { all, vlans = map[int]bool{}, nil }, func(msg []byte) {
		if len(msg) < unix.SizeofIfInfomsg || msg[0] != unix.AF_UNSPEC {
			return
		}
		n, err := netlink.LinkDeserialize(nil, msg)
		if err != nil {
			return
		}
		if x := n.Attrs().Xdp; x != nil && x.Attached {
			all[n.Attrs().Index] = true
		}
		if v, ok := n.(*netlink.Vlan); ok {
			vlans = append(vlans, v)
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, v := range vlans {
		if all[v.ParentIndex] {
			all[v.Index] = true
		}
	}
	return all, fail("RTM_GETLINK", "XDP programs", err)
}

// outputLimit is how long a program of the host's may take to answer.
const outputLimit = 5 * time.Second

// Output runs a program in the namespace and returns what it prints. The error is exec.ErrNotFound if there is no such program, and else has what it
// said of its failure.
func (h *Host) Output(name string, args ...string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), outputLimit)
	defer cancel()
	var said bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = &said
	// The child gets the namespace of the thread that forks it, so the thread is the one that starts it.
	err = h.in(func() (err error) {
		out, err = c.Output()
		return err
	})
	if text := bytes.TrimSpace(said.Bytes()); err != nil && len(text) > 0 {
		err = errors.Join(err, errors.New(string(text)))
	}
	return out, err
}
