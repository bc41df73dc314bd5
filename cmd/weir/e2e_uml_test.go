package main_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A user-mode-linux kernel has what the host's may lack: the devices that take tunnels apart, and SCTP. It is a server on the servers' link,
// with a client in a namespace of its own whose way to VIPs leads through the balancer:
//
//	lb lan ---- switch ---- tap0 | eth0 server
//	                 '----- tap1 | eth1 client
//
// As the other servers, it answers from VIPs straight and from its own address by the balancer.
const (
	uml4, uml6             = "198.18.1.21", "2001:db8:1::21"
	umlSum4, umlSum6       = "198.18.1.23", "2001:db8:1::23" // where GRE must have a checksum
	umlClient4, umlClient6 = "198.18.0.22", "2001:db8::22"
	umlName                = "uml"
)

// umlRole makes this test binary a program inside the kernel: see TestMain.
const umlRole = "WEIR_E2E_UML"

// umlInit is the kernel's first process. DIR, which it shares with the test, and SELF are replaced.
const umlInit = `#!/bin/sh
exec > DIR/init.log 2>&1
set -x
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmpfs /run
for m in hmac md5 sha1_generic ipip sit ip6_tunnel ip_gre ip6_gre fou fou6 sctp; do modprobe -d DIR $m || echo $m >> DIR/missing; done
set -e
for k in all default; do
	echo 1 > /proc/sys/net/ipv4/conf/$k/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/$k/arp_announce
	echo 0 > /proc/sys/net/ipv4/conf/$k/rp_filter; echo 0 > /proc/sys/net/ipv6/conf/$k/accept_dad
done
ip link set lo up
ip -batch DIR/vips
ip link set eth0 address 02:00:00:00:04:15 up
ip addr add 198.18.1.21/24 dev eth0; ip addr add 2001:db8:1::21/64 dev eth0 nodad
ip addr add 198.18.1.23/24 dev eth0; ip addr add 2001:db8:1::23/64 dev eth0 nodad
ip route add default via 198.18.1.2; ip -6 route add default via 2001:db8:1::2
ip route add 198.18.0.22/32 dev eth0; ip -6 route add 2001:db8::22/128 dev eth0
ip rule add from 198.18.1.21 to 198.18.0.0/24 lookup 100; ip route add default via 198.18.1.1 table 100
ip -6 rule add from 2001:db8:1::21 to 2001:db8::/64 lookup 100; ip -6 route add default via 2001:db8:1::1 table 100
for d in tunl0 sit0 gre0 ip6gre0; do ip link set $d up; echo 0 > /proc/sys/net/ipv4/conf/$d/rp_filter; done
ip link add tun6 type ip6tnl mode any local 2001:db8:1::21 remote ::
ip link set tun6 up; echo 0 > /proc/sys/net/ipv4/conf/tun6/rp_filter
ip link add sum4 type gre local 198.18.1.23 csum; ip link add sum6 type ip6gre local 2001:db8:1::23 csum
for d in sum4 sum6; do ip link set $d up; echo 0 > /proc/sys/net/ipv4/conf/$d/rp_filter; done
ip fou add port 6080 gue; ip -6 fou add port 6080 gue
WEIR_E2E_UML=server SELF DIR &
ip netns add client
ip link set eth1 netns client
ip -n client link set lo up
ip -n client link set eth1 address 02:00:00:00:04:16 up
ip -n client addr add 198.18.0.22/32 dev eth1; ip -n client addr add 2001:db8::22/128 dev eth1 nodad
ip -n client route add 198.18.1.0/24 dev eth1; ip -n client route add default via 198.18.1.1
ip -n client -6 route add 2001:db8:1::/64 dev eth1; ip -n client -6 route add default via 2001:db8:1::1
WEIR_E2E_UML=client ip netns exec client SELF DIR &
set +x
while [ ! -e DIR/end ]; do sleep 0.1; done
halt -f
`

// uml is a kernel that runs.
type uml struct {
	dir string
}

// boot starts the kernel as a server, or skips the test. It halts when the test ends.
func (f *forwardBed) boot() *uml {
	f.t.Helper()
	needs(f.t, "linux.uml", "modprobe")
	modules, err := filepath.Glob("/usr/lib/uml/modules/*")
	if err != nil || len(modules) != 1 {
		f.t.Skipf("modules of the user-mode-linux kernel: %q, want one directory", modules)
	}
	u := &uml{dir: f.t.TempDir()}
	must(f.t, os.MkdirAll(filepath.Join(u.dir, "lib/modules"), 0o755))
	must(f.t, os.Symlink(modules[0], filepath.Join(u.dir, "lib/modules", filepath.Base(modules[0]))))
	for i := range 2 {
		for _, line := range []string{"tuntap add tap%d mode tap", "link set tap%d master br0", "link set tap%d up"} {
			must(f.t, f.fabric.IP(fmt.Sprintf(line, i)))
		}
	}
	must(f.t, f.lb.IP("route add "+umlClient4+"/32 dev lan"))
	must(f.t, f.lb.IP("-6 route add "+umlClient6+"/128 dev lan"))
	self, err := os.Executable()
	must(f.t, err)
	must(f.t, os.Link(filepath.Join(f.dir, "blob"), filepath.Join(u.dir, "blob")))
	var vips strings.Builder
	for _, v := range forwardVIPs() {
		fmt.Fprintf(&vips, "addr add %s/%d dev lo\n", v, netip.MustParseAddr(v).BitLen())
	}
	must(f.t, os.WriteFile(filepath.Join(u.dir, "vips"), []byte(vips.String()), 0o644))
	script := filepath.Join(u.dir, "init")
	text := strings.NewReplacer("DIR", u.dir, "SELF", self).Replace(umlInit)
	must(f.t, os.WriteFile(script, []byte(text), 0o755))
	console := &output{}
	c := f.fabric.Command("linux.uml", "mem=256M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "init="+script,
		"con=null", "con0=null,fd:2", "quiet", "eth0=tuntap,tap0", "eth1=tuntap,tap1")
	c.Stdout, c.Stderr = console, console
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // the kernel's processes are processes here, too
	must(f.t, c.Start())
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	f.t.Cleanup(func() {
		must(f.t, os.WriteFile(filepath.Join(u.dir, "end"), nil, 0o644))
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
			<-ended
		}
		if f.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(u.dir, "init.log"))
			f.t.Logf("user-mode-linux:\n%s\n%s", console, log)
		}
	})
	begun := time.Now()
	eventually(f.t, 60*time.Second, "user-mode-linux is up", func() bool {
		if missing, err := os.ReadFile(filepath.Join(u.dir, "missing")); err == nil {
			f.t.Skipf("the user-mode-linux kernel lacks %q", missing)
		}
		select {
		case <-ended:
			if !u.has("init.log") {
				f.t.Skipf("user-mode-linux does not run here: %v\n%s", c.ProcessState, console)
			}
			f.t.Fatalf("user-mode-linux ended: %v", c.ProcessState)
		default:
		}
		return u.has("ready")
	})
	f.t.Logf("user-mode-linux was up after %v", time.Since(begun).Round(time.Millisecond))
	return u
}

func (u *uml) has(name string) bool {
	_, err := os.Stat(filepath.Join(u.dir, name))
	return err == nil
}

// umlMain is what this binary does inside the kernel; its first argument is the directory it shares with the test.
func umlMain(role string) error {
	dir := os.Args[1]
	if role == "client" {
		return umlAsk(dir)
	}
	return umlServe(dir)
}

// umlServe answers as the other servers do, and echoes by SCTP, until the kernel halts.
func umlServe(dir string) error {
	http.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		addr, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, umlName, addr)
	})
	http.HandleFunc("/blob", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, filepath.Join(dir, "blob")) })
	web, err := net.Listen("tcp", fmt.Sprintf(":%d", portWeb))
	if err != nil {
		return err
	}
	sums, err := net.Listen("tcp", fmt.Sprintf(":%d", portDigest))
	if err != nil {
		return err
	}
	go accept(sums, digest)
	for _, addr := range append(forwardVIPs(), uml4, uml6) {
		c, err := net.ListenPacket("udp", hostPort(addr, portEcho))
		if err != nil {
			return err
		}
		go answerAll(c, umlName)
		fd, err := sctpListen(netip.AddrPortFrom(netip.MustParseAddr(addr), portSCTP))
		if err != nil {
			return err
		}
		go sctpEcho(fd)
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	return http.Serve(web, nil)
}
