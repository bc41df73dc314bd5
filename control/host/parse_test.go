package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attr is one attribute as the kernel lays it out.
func attr(typ uint16, value ...byte) []byte {
	return nl.NewRtAttr(int(typ), value).Serialize()
}

// FuzzParse gives any bytes to every parser of netlink messages: whatever they say, nothing panics, and what is found makes sense.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 12), attr(unix.RTA_MULTIPATH, 8, 0, 0, 0, 1, 0, 0, 0)...))
	f.Add(append([]byte{2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0}, attr(unix.RTA_DST, 198, 18, 0, 0)...))
	f.Add(append([]byte{10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1}, attr(unix.NDA_DST, make([]byte, 16)...)...))
	f.Add(append([]byte{10, 128, 0, 0, 1, 0, 0, 0}, attr(unix.IFA_ADDRESS, make([]byte, 16)...)...))
	f.Add(append(make([]byte, 8), attr(unix.NHA_GROUP, 1, 0, 0, 0, 0, 0, 0, 0)...))
	f.Add([]byte{2, 33, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for typ := uint16(unix.RTM_NEWLINK); typ < unix.RTM_NEWNEXTHOP+4; typ++ {
			if typ == unix.RTM_NEWLINK || typ == unix.RTM_DELLINK {
				continue // the library's parser, which trusts the kernel
			}
			if e, ok := parseEvent(typ, b); ok && e.Change == ChangeRoute && typ < unix.RTM_NEWNEXTHOP && !e.To.IsValid() {
				t.Errorf("type %d: a route to nowhere", typ)
			}
		}
		if a, ok := parseAddress(b); ok && !a.Prefix.IsValid() {
			t.Errorf("address %+v", a)
		}
		if n, ok := parseNeighbor(b); ok && (!n.Addr.IsValid() || n.Addr.IsMulticast()) {
			t.Errorf("neighbour %+v", n)
		}
		if id, _, ok := parseNexthop(b); ok && id == 0 {
			t.Error("a next hop object without a number")
		}
		if r, ok := parseRoute(b); ok {
			conv, ok := r.route(PortMap{}, nil)
			for _, h := range conv.Hops {
				if ok && (h.Port != -1 || h.Weight < 1) {
					t.Errorf("hop %+v of no port", h)
				}
			}
		}
		total := 0
		attrs(b, func(_ uint16, v []byte) { total += len(v) + 4 })
		if total > len(b) {
			t.Errorf("attributes of %d bytes in %d", total, len(b))
		}
	})
}

// FuzzMountinfo: the file is the kernel's, but its lines hold what users called their directories.
func FuzzMountinfo(f *testing.F) {
	f.Add("30 23 0:27 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n")
	f.Add("- bpf\n\n30 23 0:27 / - - bpf")
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range bpfMounts(s) {
			if m == "" {
				t.Error("an empty mount point")
			}
		}
	})
}

func TestBPFMounts(t *testing.T) {
	const mountinfo = `23 1 0:21 / /proc rw - proc proc rw
30 23 0:27 / /sys/fs/bpf rw,nosuid,nodev,noexec,relatime shared:9 - bpf bpf rw,mode=700
31 23 0:28 / /mnt/a\040bpf rw - bpf none rw
32 23 0:29 / /bpf rw shared:1 master:2 - tmpfs bpf rw
`
	if got, want := bpfMounts(mountinfo), []string{"/sys/fs/bpf", "/mnt/a bpf"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPortsByVLAN(t *testing.T) {
	at := func(prefix string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(prefix)} }
	links := []Link{{Name: "eth1", Index: 3, Kind: "device", Addresses: at("198.18.0.1/24")},
		{Name: "eth1.100", Index: 7, Kind: "vlan", Parent: 3, VLAN: 100, Addresses: at("198.18.100.1/24")},
		{Name: "eth2", Index: 4, Kind: "device"}, {Name: "eth2.100", Index: 8, Kind: "vlan", Parent: 4, VLAN: 100}}
	m, err := MapPorts(links, []Port{{"eth1", 0}, {"eth1", 100}, {"eth1", 200}, {"eth2", 100}})
	if err != nil {
		t.Fatal(err)
	}
	for ifindex, want := range map[int]int{3: 0, 7: 1, 8: 3, 4: -1, 99: -1, 0: -1} {
		if got := m.Port(ifindex); got != want {
			t.Errorf("device %d is port %d, want %d", ifindex, got, want)
		}
	}
	for port, want := range []int{3, 7, 0, 8} { // no vlan device for eth1 200: its addresses are the configuration's
		if got := m.Ifindex(port); got != want {
			t.Errorf("port %d is device %d, want %d", port, got, want)
		}
	}
	if m.Ifindex(-1) != 0 || m.Ifindex(4) != 0 || m.Len() != 4 {
		t.Error("ports that are none have a device")
	}
	if got := m.links(links); got[1].Name != "eth1" || got[3].Name != "eth2" {
		t.Errorf("frames leave by %+v", got)
	} else {
		for port, want := range [][]netip.Prefix{at("198.18.0.1/24"), at("198.18.100.1/24"), nil, nil} { // each VLAN is a link of its own
			if !slices.Equal(got[port].Addresses, want) {
				t.Errorf("port %d has the addresses %v, want %v", port, got[port].Addresses, want)
			}
		}
	}
	for _, bad := range [][]Port{{{"eth1", 0}, {"eth1", 0}}, {{"eth9", 0}}} {
		if _, err := MapPorts(links, bad); err == nil || !strings.Contains(err.Error(), bad[0].Interface) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestEncapsulatedHopsAreTheKernels(t *testing.T) {
	header := []byte{unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, 4, 0, unix.RTN_UNICAST, 0, 0, 0, 0}
	msg := slices.Concat(header, attr(unix.RTA_DST, 198, 18, 5, 0), attr(unix.RTA_OIF, 3, 0, 0, 0),
		attr(unix.RTA_GATEWAY, 198, 18, 0, 2), attr(unix.RTA_ENCAP_TYPE, 1, 0))
	m := PortMap{index: map[int]int{3: 0}}
	r, ok := parseRoute(msg)
	if !ok {
		t.Fatal("not a route")
	}
	got, ok := r.route(m, nil)
	if !ok || len(got.Hops) != 1 || got.Hops[0].Port != -1 || got.Hops[0].Via != netip.MustParseAddr("198.18.0.2") {
		t.Errorf("an MPLS route is %+v, want one hop that is no port's", got)
	}
}

func TestWeightsOf16Bits(t *testing.T) {
	group := binary.NativeEndian.AppendUint32(nil, 5)
	group = append(group, 0x2b, 0x01, 0, 0) // 300 less one
	_, n, ok := parseNexthop(append(make([]byte, 8), slices.Concat(attr(unix.NHA_ID, 9, 0, 0, 0), attr(unix.NHA_GROUP, group...))...))
	if !ok || len(n.group) != 1 || n.group[0] != (member{5, 300}) {
		t.Errorf("group %+v", n.group)
	}
}

func TestErrorsNameCallObjectAndCure(t *testing.T) {
	for err, want := range map[error]string{
		unix.EPERM:      "RTM_NEWADDR x: operation not permitted (needs root",
		unix.ENODEV:     "RTM_NEWADDR x: no such device (no such interface in this network namespace",
		unix.EOPNOTSUPP: "RTM_NEWADDR x: operation not supported (the driver or the kernel",
		unix.EROFS:      "RTM_NEWADDR x: read-only file system (mounted read-only",
	} {
		if got := fail("RTM_NEWADDR", "x", err); !strings.HasPrefix(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if fail("x", "y", nil) != nil {
		t.Error("no error is an error")
	}
}

func TestAClosedHostSaysSo(t *testing.T) {
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	// As seen from another namespace, the descriptor is needed.
	h.ino++
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Links(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Links of a closed Host: %v", err)
	}
}
