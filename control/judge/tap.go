package judge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet/pkttest"
)

// tap is a packet socket on the outer end of a link.
type tap struct{ fd int }

func newTap(device int) (*tap, error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	return &tap{fd}, nil
}

func (t *tap) close() { unix.Close(t.fd) }

func (t *tap) send(frame []byte) error {
	if _, err := unix.Write(t.fd, frame); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(frame), err)
	}
	return nil
}

// receive returns a frame that came in; ok is false if there is none.
func (t *tap) receive(buf []byte) (frame []byte, ok bool, err error) {
	for {
		n, from, err := unix.Recvfrom(t.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, false, fmt.Errorf("receive: %w", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		return buf[:n], true, nil
	}
}

// The marker is a packet that the balancer merely routes on, from the client's to the server's side. One processor takes packets in the
// order they were queued in, so when the marker comes out, all that an earlier packet gave rise to has come out. What is answered by the
// host itself goes through one queue more; so two markers are sent, one after the other.
const markerProtocol = 253 // for experiments (RFC 3692)

func marker(side int, from, to string) []byte {
	src, dst := MACs(side)
	return pkttest.IP(netip.MustParseAddr(from), netip.MustParseAddr(to), markerProtocol, []byte("marker")).Frame(pkttest.MAC(src), pkttest.MAC(dst))
}

const markerPatience = 2 * time.Second

// ready waits until the balancer routes packets of both families both ways: the kernel sets up IPv6 on a new device in its own time.
func (b *kernelBed) ready() error {
	for _, m := range []struct {
		side     int
		from, to string
	}{
		{Client, "198.18.0.2", "198.18.1.19"}, {Server, "198.18.1.19", "198.18.128.1"},
		{Client, "2001:db8::2", "2001:db8:1::19"}, {Server, "2001:db8:1::19", "2001:db8:c::1"},
	} {
		for deadline := time.Now().Add(markerPatience); ; {
			if err := b.taps[m.side].send(marker(m.side, m.from, m.to)); err != nil {
				return err
			}
			if _, err := b.until(nil, 20*time.Millisecond); err == nil {
				break
			} else if time.Now().After(deadline) {
				return fmt.Errorf("%s to %s: %w", m.from, m.to, err)
			}
		}
	}
	return nil
}

// play sends one packet from a side and returns all that came out.
func (b *kernelBed) play(side int, ip []byte) (out []Output, err error) {
	from, to := MACs(side)
	if err := b.taps[side].send(pkttest.Frame(ip, pkttest.MAC(from), pkttest.MAC(to))); err != nil {
		return nil, err
	}
	for range 2 {
		if err := b.taps[Client].send(marker(Client, "198.18.0.2", "198.18.1.19")); err != nil {
			return nil, err
		}
		if out, err = b.until(out, markerPatience); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// until collects what comes out before the marker does.
func (b *kernelBed) until(out []Output, patience time.Duration) ([]Output, error) {
	deadline := time.Now().Add(patience)
	buf := make([]byte, 16384)
	for last := false; ; {
		seen := false
		for side := range b.taps {
			for {
				frame, ok, err := b.taps[side].receive(buf)
				if err != nil {
					return nil, err
				}
				if !ok {
					break
				}
				o, marker, ok := sort(side, frame)
				seen = seen || marker
				if ok {
					out = append(out, o)
				}
			}
		}
		if last {
			return out, nil
		}
		if last = seen; seen {
			continue // the other side may have had something after it was looked at
		}
		if time.Now().After(deadline) {
			return nil, errors.New("the marker does not come out")
		}
		fds := []unix.PollFd{{Fd: int32(b.taps[0].fd), Events: unix.POLLIN}, {Fd: int32(b.taps[1].fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 10); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("poll: %w", err)
		}
	}
}

// sort tells what the scenario's is from the marker and from the kernel's own noise (multicast listener reports, neighbour discovery).
func sort(side int, frame []byte) (o Output, marker, ok bool) {
	if len(frame) < 14+20 {
		return o, false, false
	}
	ip := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		ip = ip[:min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))]
		if ip[9] == markerProtocol {
			return o, true, false
		}
	case unix.ETH_P_IPV6:
		if len(ip) > 6 && ip[6] == markerProtocol {
			return o, true, false
		}
		if len(ip) < 41 || ip[6] == 0 || ip[6] == unix.IPPROTO_ICMPV6 && ip[40] >= 130 {
			return o, false, false
		}
		ip = ip[:min(len(ip), 40+int(binary.BigEndian.Uint16(ip[4:])))]
	default:
		return o, false, false
	}
	mac := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", frame[0], frame[1], frame[2], frame[3], frame[4], frame[5])
	return Output{Side: side, MAC: mac, IP: append([]byte{}, ip...)}, false, true
}
