package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// outer is what stands around a tunneled frame.
type outer struct {
	from, to netip.AddrPort
	ttl      byte
	header   [8]byte // VXLAN's
	inner    []byte
}

// untunnel reads a frame of the underlay. It reports false for what is not sent to the VXLAN port.
func untunnel(f []byte, port int) (o outer, ok bool) {
	s, ok := segmentOf(f)
	if !ok || int(s.dst.Port()) != port {
		return o, false
	}
	udp := f[14+20:]
	if s.dst.Addr().Is6() {
		udp = f[14+40:]
	}
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < 8+8+14 || n > len(udp) {
		return o, false
	}
	return outer{from: s.src, to: s.dst, ttl: s.ttl, header: [8]byte(udp[8:]), inner: udp[16:n]}, true
}

// probeType marks the frames that a test sends to see where they come: IEEE 802's local experimental EtherType 1.
const probeType = 0x88b5

// probe is a frame of the least size.
func probe(dst, src, text string) []byte {
	f := append(append(pkttest.MAC(dst), pkttest.MAC(src)...), probeType>>8, probeType&0xff)
	return append(append(f, text...), make([]byte, 60-len(f)-len(text))...)
}

// probeText is what a probe says.
func probeText(f []byte) (text string, ok bool) {
	if len(f) < 15 || binary.BigEndian.Uint16(f[12:]) != probeType {
		return "", false
	}
	return string(bytes.TrimRight(f[14:], "\x00")), true
}

// watch sees where a segment's probes come: the hosts behind VTEPs are "host0" and "host1", those on access ports "access0" and so on, and
// what the balancer sends through the underlay is seen at "vtep0" and "vtep1".
type watch struct {
	b   *overlayBed
	t   testing.TB
	seg *overlay

	fds    map[string]int
	serial int

	mu    sync.Mutex
	sent  map[string][]byte
	seen  map[string]map[string]int // text, place
	wrong []string
	ports map[string]map[uint16]int // text -> source ports in the underlay
}

// watch begins to watch a segment, until the test ends.
func (b *overlayBed) watch(t testing.TB, seg *overlay) *watch {
	t.Helper()
	w := &watch{b: b, t: t, seg: seg, fds: map[string]int{}, sent: map[string][]byte{},
		seen: map[string]map[string]int{}, ports: map[string]map[uint16]int{}}
	stations := func(kind string, all []*testnet.Space) {
		for i, s := range all {
			place := fmt.Sprint(kind, i)
			fd := packetSocket(t, s, "eth0", 0)
			t.Cleanup(func() { unix.Close(fd) })
			w.fds[place] = fd
			frames(t, s, "eth0", func(f []byte) { w.note(place, f) })
		}
	}
	stations("host", seg.hosts)
	stations("access", seg.access)
	for i, s := range b.servers {
		place := fmt.Sprint("vtep", i)
		frames(t, s, "eth0", func(f []byte) { w.underlay(place, seg.theirs(i), f) })
	}
	return w
}

// note counts a probe at a place. It must be as it was sent.
func (w *watch) note(place string, f []byte) (text string, ok bool) {
	if text, ok = probeText(f); !ok {
		return "", false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sent, known := w.sent[text]; known && !bytes.Equal(sent, f) {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q was sent as\n%x, came as\n%x", place, text, sent, f))
	}
	if w.seen[text] == nil {
		w.seen[text] = map[string]int{}
	}
	w.seen[text][place]++
	return text, true
}

// underlay counts a probe that the balancer sends to a VTEP. The outer headers must be right.
func (w *watch) underlay(place, vtep string, f []byte) {
	o, ok := untunnel(f, w.b.portOf(w.seg))
	if !ok || o.from.Addr() != netip.MustParseAddr(w.seg.ours()) {
		return
	}
	text, ok := w.note(place, o.inner)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ports[text] == nil {
		w.ports[text] = map[uint16]int{}
	}
	w.ports[text][o.from.Port()]++
	want := [8]byte{0: 0x08, 4: byte(w.seg.vni >> 16), 5: byte(w.seg.vni >> 8), 6: byte(w.seg.vni)}
	switch {
	case o.to.Addr() != netip.MustParseAddr(vtep) && o.to.Addr().String() != w.seg.group:
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q is sent to %v", place, text, o.to))
	case o.header != want:
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q has the VXLAN header %x", place, text, o.header))
	case o.from.Port() < 49152:
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q comes from port %d", place, text, o.from.Port()))
	case o.ttl < 32:
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q has a TTL of %d", place, text, o.ttl))
	case !w.seg.over6 && f[14+6]&0xe0 != 0x40:
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q is not sent with DF", place, text))
	}
}

// send sends a probe from a place. Its text should be new.
func (w *watch) send(place, dst, src, text string) {
	w.t.Helper()
	f := probe(dst, src, text)
	w.mu.Lock()
	w.sent[text] = f
	w.mu.Unlock()
	w.emit(place, f)
}

func (w *watch) emit(place string, f []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fds[place], f); err != nil {
		w.t.Fatalf("%s sends: %v", place, err)
	}
}

// counts is where a probe was seen, and how often.
func (w *watch) counts(text string) map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen[text])
}

// settle waits until all that was sent before has come where it comes: what is broadcast later from everywhere is everywhere, and then again, for
// what the balancer might have sent on.
func (w *watch) settle() {
	w.t.Helper()
	for range 2 {
		w.serial++
		texts := map[string]string{}
		for place := range w.fds {
			texts[place] = fmt.Sprint("settle ", w.serial, " from ", place)
			w.send(place, everyone, fmt.Sprintf("02:00:00:00:65:%02x", place[0]^place[len(place)-1]), texts[place])
		}
		everywhere := func(place, text string) bool {
			seen := w.counts(text)
			for other := range w.fds {
				if other != place && seen[other] == 0 {
					return false
				}
			}
			return place[0] == 'h' || seen["vtep0"] > 0 && seen["vtep1"] > 0
		}
		for place, text := range texts {
			for deadline := time.Now().Add(5 * time.Second); !everywhere(place, text); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					w.t.Fatalf("%s is not everywhere: %v", text, w.counts(text))
				}
			}
		}
	}
}

// expect sends a probe and wants it to come to these places, once to each, and to no other.
func (w *watch) expect(what, from, dst, src string, want ...string) {
	w.t.Helper()
	w.serial++
	text := fmt.Sprint(w.serial, " ", what)
	if len(text) > 46 {
		text = text[:46]
	}
	w.send(from, dst, src, text)
	w.settle()
	w.came(text, what, want...)
}

// arrives waits until a probe has come to as many places as it should, and wants it to be these.
func (w *watch) arrives(text string, want ...string) {
	w.t.Helper()
	for deadline := time.Now().Add(dialLimit); len(w.counts(text)) < len(want) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	w.came(text, text, want...)
}

// came wants a probe to have come to these places, once to each, and to no other.
func (w *watch) came(text, what string, want ...string) {
	w.t.Helper()
	all := map[string]int{}
	for _, place := range want {
		all[place] = 1
	}
	if got := w.counts(text); !maps.Equal(got, all) {
		w.t.Errorf("%s: came to %v, not once to each of %v", what, got, want)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) > 0 {
		w.t.Errorf("%s:\n%s", what, strings.Join(w.wrong, "\n"))
		w.wrong = nil
	}
}
