package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weir/control/host"
)

func TestSysctlsComeBack(t *testing.T) {
	p := newPair(t)
	for key, value := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/wan/rp_filter": "1", "net/ipv4/conf/wan/arp_ignore": "0"} {
		must(t, p.lb.Sysctl(key, value))
	}
	s := p.h.NewSysctls()
	must(t, s.Set("net/ipv4/ip_forward", "1"))
	must(t, s.Set("net/ipv4/conf/wan/rp_filter", "2"))
	must(t, s.Set("net/ipv4/conf/wan/rp_filter", "0"))
	must(t, s.Set("net/ipv4/conf/wan/arp_ignore", "0")) // it is already
	want := []host.Setting{{"net/ipv4/ip_forward", "0", "1"}, {"net/ipv4/conf/wan/rp_filter", "1", "2"}, {"net/ipv4/conf/wan/rp_filter", "2", "0"}}
	if got := s.Changes(); !slices.Equal(got, want) {
		t.Errorf("changes %v, want %v", got, want)
	}
	if err := s.Set("net/ipv4/conf/eth7/rp_filter", "1"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "eth7") {
		t.Errorf("a device that is not there: %v", err)
	}
	must(t, s.Set("net/ipv4/conf/wan/arp_ignore", "1"))
	must(t, p.lb.Sysctl("net/ipv4/conf/wan/arp_ignore", "2")) // the operator's word is the last
	must(t, s.Close())
	for key, want := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/wan/rp_filter": "1", "net/ipv4/conf/wan/arp_ignore": "2"} {
		if got, err := p.h.Sysctl(key); err != nil || got != want {
			t.Errorf("%s is %s after Close, %v, want %s", key, got, err, want)
		}
	}
}

func TestAdvice(t *testing.T) {
	p := newPair(t)
	for _, tc := range []struct {
		name string
		set  map[string]string
		ip   string
		want string // the key that advice must name; "" for none but about forwarding
	}{
		{name: "a host as it is"},
		{name: "arp_ignore for all", set: map[string]string{"net/ipv4/conf/all/arp_ignore": "1"}, want: "net/ipv4/conf/all/arp_ignore"},
		{name: "arp_ignore of the port", set: map[string]string{"net/ipv4/conf/wan/arp_ignore": "1"}, want: "net/ipv4/conf/wan/arp_ignore"},
		{name: "strict rp_filter", set: map[string]string{"net/ipv4/conf/wan/rp_filter": "1"}, want: "net/ipv4/conf/wan/rp_filter"},
		{name: "strict rp_filter for all", set: map[string]string{"net/ipv4/conf/all/rp_filter": "1"}, want: "net/ipv4/conf/all/rp_filter"},
		{name: "gratuitous ARP dropped", set: map[string]string{"net/ipv4/conf/wan/drop_gratuitous_arp": "1"}, want: "net/ipv4/conf/wan/drop_gratuitous_arp"},
		{name: "IPv6 off", set: map[string]string{"net/ipv6/conf/lo/disable_ipv6": "1"}, want: "net/ipv6/conf/lo/disable_ipv6"},
		{name: "policy routing", ip: "rule add from 198.18.9.0/24 table 1000", want: "ip rule"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for key, value := range tc.set {
				old, err := p.h.Sysctl(key)
				must(t, err)
				must(t, p.lb.Sysctl(key, value))
				defer func() { must(t, p.lb.Sysctl(key, old)) }()
			}
			if tc.ip != "" {
				ip(t, p.lb, tc.ip)
			}
			var keys []string
			for _, a := range p.h.Advise([]host.Port{{Interface: "wan"}}) {
				if a.Key != "net/ipv4/ip_forward" && a.Key != "net/ipv6/conf/all/forwarding" {
					keys = append(keys, a.Key)
					if !strings.Contains(a.String(), a.Why) || a.Want != "" && !strings.Contains(a.String(), "sysctl -w "+a.Key+"="+a.Want) {
						t.Errorf("the line %q lacks reason or cure", a)
					}
				}
			}
			var want []string
			if tc.want != "" {
				want = []string{tc.want}
			}
			if !slices.Equal(keys, want) {
				t.Errorf("advice on %v, want %v", keys, want)
			}
		})
	}
	must(t, p.lb.Sysctl("net/ipv4/ip_forward", "1"))
	for _, a := range p.h.Advise([]host.Port{{Interface: "wan"}}) {
		if a.Key == "net/ipv4/ip_forward" {
			t.Errorf("ip_forward is 1, and yet: %v", a)
		}
	}
}

// Advice without need is as bad as none: with arp_ignore the kernel must really not answer for a VIP on lo.
func TestArpIgnoreReallyHidesVIPs(t *testing.T) {
	for _, tc := range []struct {
		ignore   string
		answered bool
	}{{"0", true}, {"1", false}} {
		p := newPair(t)
		must(t, p.lb.Sysctl("net/ipv4/conf/wan/arp_ignore", tc.ignore))
		v, err := p.h.NewVIPs(nil, t.TempDir()) // no ports: nothing is announced, so the peer has to ask
		must(t, err)
		must(t, v.Set(vips(onLinkV4)))
		k, err := p.peer.Host().NewKeeper(everywhere)
		must(t, err)
		l, err := p.peer.Host().Link("eth0")
		must(t, err)
		for _, a := range addrs(onLinkV4, "198.18.0.1") { // in this order: the second answer is after the first
			must(t, k.Resolve(l.Index, a))
		}
		eventually(t, "the port's own address is answered", func() bool { return entry(t, p.peer.Host(), "198.18.0.1").Valid() })
		if got := entry(t, p.peer.Host(), onLinkV4).Valid(); got != tc.answered {
			t.Errorf("arp_ignore %s: the VIP is answered: %v, want %v", tc.ignore, got, tc.answered)
		}
		must(t, k.Release())
		must(t, v.Release())
	}
}

func TestBPFFS(t *testing.T) {
	if _, err := host.FindBPFFS(t.TempDir()); !errors.Is(err, host.ErrNoBPFFS) || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("a directory that is none: %v, want the cure", err)
	}
	if _, err := host.FindBPFFS(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, host.ErrNoBPFFS) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("a directory that is not there: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "a bpf")
	must(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("mount bpf: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if got, err := host.FindBPFFS(dir); err != nil || got != dir {
		t.Errorf("the one asked for: %q, %v", got, err)
	}
	got, err := host.FindBPFFS("")
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Statfs(got, &st))
	if st.Type != unix.BPF_FS_MAGIC {
		t.Errorf("%s is of type %#x", got, st.Type)
	}
}
