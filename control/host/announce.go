package host

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// rounds are when an announcement is sent, counted from the first: once more for a switch whose port was not yet forwarding, and once
// more for what was lost.
var rounds = []time.Duration{0, time.Second, 3 * time.Second}

// pause is made after each burst of announcements, so that a thousand VIPs do not overrun a neighbour's ARP queue.
const (
	burst = 64
	pause = 2 * time.Millisecond
)

// announcer tells the neighbours on the ports' links to which MAC an address belongs now: by a gratuitous ARP request (RFC 5227 section
// 3: sender and target are the address itself) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6). Who has an entry
// for the address corrects it at once.
type announcer struct {
	h *Host

	sent, refused atomic.Uint64

	mu    sync.Mutex
	ports []Port
	bound map[netip.Addr]bool // what may be announced still
	ended bool
	quit  chan struct{}
	wg    sync.WaitGroup
}

func (a *announcer) start(h *Host, ports []Port) {
	a.h, a.ports, a.quit = h, ports, make(chan struct{})
}

func (a *announcer) setPorts(ports []Port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ports = ports
}

// set says what is bound: a later round does not announce what was unbound meanwhile.
func (a *announcer) set(bound map[Binding]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bound = make(map[netip.Addr]bool, len(bound))
	for b := range bound {
		if b.Prefix.IsSingleIP() {
			a.bound[b.Prefix.Addr()] = true
		}
	}
}

// send announces addrs in all rounds, and does not wait for it.
func (a *announcer) send(addrs []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || len(addrs) == 0 || len(a.ports) == 0 {
		return
	}
	a.wg.Go(func() {
		began := time.Now()
		for _, at := range rounds {
			timer := time.NewTimer(time.Until(began.Add(at)))
			select {
			case <-a.quit:
				timer.Stop()
				return
			case <-timer.C:
			}
			a.round(addrs)
		}
	})
}

// round sends one announcement of each address on each port. A port that is down refuses them, and gets the next round.
func (a *announcer) round(addrs []netip.Addr) {
	links, err := a.h.Links()
	if err != nil {
		a.refused.Add(uint64(len(addrs)))
		return
	}
	a.mu.Lock()
	ports := mapPorts(links, a.ports)
	a.mu.Unlock()
	_ = a.h.in(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: sends only
		if err != nil {
			a.refused.Add(uint64(len(addrs)))
			return err
		}
		defer unix.Close(fd)
		n := 0
		for i, l := range ports.links(links) {
			out, tag := ports.wire[i], ports.tag[i]
			if l3 := ports.l3[i]; l3 != 0 {
				out, tag = l3, 0 // the vlan device puts the tag on
			}
			for _, addr := range addrs {
				if !a.current(addr) {
					continue
				}
				if err := unix.Sendto(fd, announcement(addr, l.MAC, tag), 0, &unix.SockaddrLinklayer{Ifindex: out, Halen: 6}); err != nil {
					a.refused.Add(1)
				} else {
					a.sent.Add(1)
				}
				if n++; n%burst == 0 {
					time.Sleep(pause)
				}
			}
		}
		return nil
	})
}

func (a *announcer) current(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bound[addr] && !a.ended
}

func (a *announcer) stop() {
	a.mu.Lock()
	if !a.ended {
		a.ended = true
		close(a.quit)
	}
	a.mu.Unlock()
	a.wg.Wait()
}

// announcement is the frame that says addr is at mac, with an 802.1Q tag unless that is 0.
func announcement(addr netip.Addr, mac [6]byte, tag uint16) []byte {
	if addr.Is4() {
		ip := addr.As4()
		b := ethernet([6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, tag, packet.EtherTypeARP)
		b = append(b, 0, 1, 0x08, 0x00, 6, 4, 0, 1) // Ethernet, IPv4, request
		b = append(append(b, mac[:]...), ip[:]...)
		b = append(append(b, 0, 0, 0, 0, 0, 0), ip[:]...)
		return b
	}
	const (
		hopLimit         = 255  // anything less is ignored, as it may come from beyond a router
		advertisement    = 136  // ICMPv6 type
		override         = 0x20 // replace the MAC you have; neither router nor solicited
		targetLinkLayer  = 2    // option, in units of 8 bytes: 1
		icmpLen          = 8 + 16 + 8
		headerLen        = 40
		checksumPosition = headerLen + 2
	)
	ip := addr.As16()
	allNodes := netip.MustParseAddr("ff02::1").As16()
	p := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, icmpLen)
	p = append(p, packet.ProtoICMPv6, hopLimit)
	p = append(append(p, ip[:]...), allNodes[:]...)
	p = append(p, advertisement, 0, 0, 0, override, 0, 0, 0)
	p = append(append(p, ip[:]...), targetLinkLayer, 1)
	p = append(p, mac[:]...)
	// The pseudo header (RFC 8200 section 8.1) is the addresses, length and next header; p[8:] is the addresses and the message.
	sum := uint32(icmpLen + packet.ProtoICMPv6)
	for i := 8; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[checksumPosition:], ^uint16(sum))
	return append(ethernet([6]byte{0x33, 0x33, 0, 0, 0, 1}, mac, tag, packet.EtherTypeIPv6), p...)
}

// ethernet is the link header of a frame of ours.
func ethernet(dst, src [6]byte, tag, etherType uint16) []byte {
	b := append(append(make([]byte, 0, 96), dst[:]...), src[:]...)
	if tag != 0 {
		b = binary.BigEndian.AppendUint16(b, packet.EtherTypeVLAN)
		b = binary.BigEndian.AppendUint16(b, tag)
	}
	return binary.BigEndian.AppendUint16(b, etherType)
}
