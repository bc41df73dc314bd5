package steer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Mode is where the kernel runs an XDP program.
type Mode string

const (
	Auto    Mode = "auto"    // native if the driver can, else generic
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // behind it, on socket buffers; works on every device
)

// linkKey names one attachment.
type linkKey struct {
	hook    hook
	ifindex int
}

func (k linkKey) pin() string {
	if k.hook == hookTC {
		return tcPinPrefix + strconv.Itoa(k.ifindex)
	}
	return xdpPinPrefix + strconv.Itoa(k.ifindex)
}

// linkKeyOf is the inverse of linkKey.pin.
func linkKeyOf(name string) (linkKey, bool) {
	k, digits := linkKey{hook: hookXDP}, ""
	if d, ok := strings.CutPrefix(name, xdpPinPrefix); ok {
		digits = d
	} else if d, ok := strings.CutPrefix(name, tcPinPrefix); ok {
		k.hook, digits = hookTC, d
	} else {
		return k, false
	}
	n, err := strconv.Atoi(digits)
	k.ifindex = n
	return k, err == nil
}

// Attach puts the XDP program in front of the device in the calling thread's network namespace, and returns the mode it got. If a
// predecessor's program is attached by a pinned link, it is replaced in place: no frame sees neither of the two. Only where the mode
// asked for is not the predecessor's, there is a moment with no program.
//
// A device with another XDP program is not touched (device or resource busy).
func (p *Program) Attach(ifindex int, mode Mode) (got Mode, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mode != Auto && mode != Native && mode != Generic {
		return "", fmt.Errorf("attach ifindex %d: mode %q is none of auto, native, generic", ifindex, mode)
	}
	k := linkKey{hookXDP, ifindex}
	if p.links[k] != nil {
		return "", fmt.Errorf("attach ifindex %d: already attached", ifindex)
	}
	if _, err := p.numbers.slot(ifindex); err != nil {
		return "", err
	}
	if l := p.adoptLink(k, mode); l != nil {
		p.links[k] = l
		return attachedMode(ifindex)
	}
	var l link.Link
	if mode != Generic {
		l, err = link.AttachXDP(link.XDPOptions{Program: p.xdp, Interface: ifindex, Flags: link.XDPDriverMode})
	}
	if mode == Generic || mode == Auto && err != nil && !errors.Is(err, unix.EBUSY) {
		native := err
		if l, err = link.AttachXDP(link.XDPOptions{Program: p.xdp, Interface: ifindex, Flags: link.XDPGenericMode}); err != nil {
			err = errors.Join(native, err)
		}
	}
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w (another XDP program is attached)", err)
		}
		return "", fmt.Errorf("attach XDP program to ifindex %d, mode %s: %w", ifindex, mode, err)
	}
	if err := p.keep(k, l); err != nil {
		return "", err
	}
	return attachedMode(ifindex)
}

// AttachDrop puts the tc program at the device's ingress: the kernel's stack no longer sees what is ours while the heartbeat is young.
// Packet sockets get their copy before. It needs tcx: Linux 6.6.
func (p *Program) AttachDrop(ifindex int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := linkKey{hookTC, ifindex}
	switch {
	case p.tcErr != nil:
		return p.tcErr
	case p.links[k] != nil:
		return fmt.Errorf("attach ifindex %d: already attached", ifindex)
	}
	if _, err := p.numbers.slot(ifindex); err != nil {
		return err
	}
	if l := p.adoptLink(k, Auto); l != nil {
		p.links[k] = l
		return nil
	}
	l, err := link.AttachTCX(link.TCXOptions{Program: p.tc, Interface: ifindex, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("attach tc program to ifindex %d: tcx needs Linux 6.6: %w", ifindex, err)
	}
	if err != nil {
		return fmt.Errorf("attach tc program to ifindex %d: %w", ifindex, err)
	}
	return p.keep(k, l)
}

// keep pins a new link if pins are kept.
func (p *Program) keep(k linkKey, l link.Link) error {
	if p.pins.dir != "" {
		if err := l.Pin(filepath.Join(p.pins.dir, k.pin())); err != nil {
			l.Close()
			return fmt.Errorf("pin link of ifindex %d: %w", k.ifindex, err)
		}
	}
	p.links[k] = l
	return nil
}

// adoptLink takes over a predecessor's link and exchanges its program. It returns nil, and removes the pin, if there is none that is
// attached to this device of this namespace in this mode.
func (p *Program) adoptLink(k linkKey, mode Mode) link.Link {
	if p.pins.dir == "" {
		return nil
	}
	at := filepath.Join(p.pins.dir, k.pin())
	l, err := link.LoadPinnedLink(at, nil)
	if err != nil {
		return nil
	}
	if p.replaced && p.heart.beat.Load() == 0 {
		// The maps are new and nobody has beaten yet: passing everything now would let the kernel reset the predecessor's clients.
		p.heart.beat.Store(uint64(Now()))
	}
	if attachedHere(l, k, mode) && l.Update(p.program(k.hook)) == nil {
		return l
	}
	l.Detach() // of a device that is gone, this is an error of no interest
	l.Close()
	os.Remove(at)
	return nil
}

func (p *Program) program(h hook) *ebpf.Program {
	if h == hookTC {
		return p.tc
	}
	return p.xdp
}

// attachedHere reports whether the link is what the device in this network namespace runs. Another namespace may have the same
// ifindex; only the running program's number tells them apart.
func attachedHere(l link.Link, k linkKey, mode Mode) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	if k.hook == hookTC {
		t := info.TCX()
		q, err := link.QueryPrograms(link.QueryOptions{Target: k.ifindex, Attach: ebpf.AttachTCXIngress})
		if t == nil || int(t.Ifindex) != k.ifindex || err != nil {
			return false
		}
		for _, prog := range q.Programs {
			if prog.ID == info.Program {
				return true
			}
		}
		return false
	}
	x := info.XDP()
	dev, err := netlink.LinkByIndex(k.ifindex)
	if x == nil || int(x.Ifindex) != k.ifindex || err != nil || dev.Attrs().Xdp == nil || dev.Attrs().Xdp.ProgId != uint32(info.Program) {
		return false
	}
	return mode == Auto || modeOf(dev.Attrs().Xdp.AttachMode) == mode
}

// attachedMode asks the kernel in which mode the device runs its XDP program.
func attachedMode(ifindex int) (Mode, error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return "", fmt.Errorf("ifindex %d: %w", ifindex, err)
	}
	if dev.Attrs().Xdp == nil {
		return "", fmt.Errorf("ifindex %d: the XDP program is gone again", ifindex)
	}
	return modeOf(dev.Attrs().Xdp.AttachMode), nil
}

func modeOf(attached uint32) Mode {
	if attached == nl.XDP_ATTACHED_SKB {
		return Generic
	}
	return Native
}
