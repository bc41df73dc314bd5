package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sctpCall is an SCTP association that the client in the kernel makes: to a VIP, from an address and port of its own.
type sctpCall struct {
	Name     string
	From, To netip.AddrPort
	Hold     bool // stays open until the test says so
}

// sctpSocket is a stream socket at one address. Of several, an association would tell the other end, which then tries them past the balancer.
func sctpSocket(at netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fd, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, sockaddr(at)))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func sctpListen(at netip.AddrPort) (fd int, err error) {
	if fd, err = sctpSocket(at); err != nil {
		return fd, err
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, 16))
}

// sctpEcho sends back what comes, for ever.
func sctpEcho(fd int) {
	for {
		c, _, err := unix.Accept(fd)
		if err != nil {
			continue // the time to wait is over
		}
		go func() {
			defer unix.Close(c)
			buf := make([]byte, 128<<10)
			for {
				n, err := again(unix.Read, c, buf)
				if err == unix.EAGAIN {
					continue
				}
				if err != nil || n == 0 {
					return
				}
				if _, err := again(unix.Write, c, buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// again repeats a call that one of the runtime's signals has interrupted, which the kernel does not where there is a limit of time.
func again(call func(int, []byte) (int, error), fd int, b []byte) (n int, err error) {
	for n, err = call(fd, b); err == unix.EINTR; n, err = call(fd, b) {
	}
	return n, err
}

// sctpConnect is connect without waiting, and then waiting, so that a signal cannot interrupt it half way.
func sctpConnect(fd int, to netip.AddrPort) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, max(0, int(time.Until(end).Milliseconds())))
		if err == unix.EINTR && time.Now().Before(end) {
			continue
		}
		if err == nil && ready == 0 {
			err = unix.ETIMEDOUT
		}
		if err != nil {
			return err
		}
		break
	}
	if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
		return errors.Join(err, syscall.Errno(errno))
	}
	return unix.SetNonblock(fd, false)
}

// do makes the association, exchanges messages from one byte to many packets, and ends it when hold returns.
func (c sctpCall) do(hold func()) error {
	fd, err := sctpSocket(c.From)
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err != nil {
		return err
	}
	if err := sctpConnect(fd, c.To); err != nil {
		return os.NewSyscallError("connect", err)
	}
	for _, size := range []int{1, 100, 1400, 5000, 40000} {
		message := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := again(unix.Write, fd, message); err != nil {
			return os.NewSyscallError("write", err)
		}
		got := make([]byte, size)
		for n := 0; n < size; {
			m, err := again(unix.Read, fd, got[n:])
			if err != nil || m == 0 {
				return fmt.Errorf("read %d of %d bytes: %d, %w", n, size, m, err)
			}
			n += m
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("of %d bytes came others", size)
		}
	}
	if c.Hold {
		hold()
	}
	return nil
}

// umlAsk makes the calls that the test leaves in dir, one after the other, and leaves there what became of each, until the kernel halts.
func umlAsk(dir string) error {
	for ; ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "call"))
		if err != nil {
			continue
		}
		var c sctpCall
		if err := json.Unmarshal(b, &c); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(dir, "call")); err != nil {
			return err
		}
		err = c.do(func() {
			_ = os.WriteFile(filepath.Join(dir, "held"), nil, 0o644)
			for os.Remove(filepath.Join(dir, "release")) != nil {
				time.Sleep(20 * time.Millisecond)
			}
		})
		said := "ok"
		if err != nil {
			said = err.Error()
		}
		if err := write(filepath.Join(dir, "answer"), []byte(said)); err != nil {
			return err
		}
	}
}

// write makes a file whose reader never sees half of it.
func write(file string, b []byte) error {
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// call has the client in the kernel make an association; during is done while it is open.
func (u *uml) call(t testing.TB, c sctpCall, during func()) {
	t.Helper()
	b, err := json.Marshal(c)
	must(t, err)
	must(t, write(filepath.Join(u.dir, "call"), b))
	if c.Hold {
		eventually(t, 30*time.Second, c.Name+": the association is there", func() bool { return u.has("held") || u.has("answer") })
		if os.Remove(filepath.Join(u.dir, "held")) == nil {
			during()
			must(t, os.WriteFile(filepath.Join(u.dir, "release"), nil, 0o644))
		}
	}
	var said []byte
	eventually(t, 30*time.Second, c.Name+": the client is done", func() bool {
		said, err = os.ReadFile(filepath.Join(u.dir, "answer"))
		return err == nil
	})
	must(t, os.Remove(filepath.Join(u.dir, "answer")))
	if string(said) != "ok" {
		t.Errorf("%s: %s", c.Name, said)
	}
}

// TestUserModeLinux has a kernel with all that the host's lacks be the server: it takes every tunnel apart by its own devices, and speaks SCTP
// through every mode with a client in the same kernel.
func TestUserModeLinux(t *testing.T) {
	f := newForwardBed(t, options{})
	const size = 4 << 20
	sum := f.serve(size)
	d := f.start(f.config("services:", mode{forward: "nat", vip: vip4, server: uml4}.services()))
	u := f.boot()
	modes := tunnelModes(nil, uml4, uml6, 4)
	for i, m := range modes {
		if m.forward == "gre" && m.backend != "" { // a device takes either those with a checksum or those without
			modes[i].server = map[string]string{uml4: umlSum4, uml6: umlSum6}[m.server]
		}
	}
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			f, d := f.with(t), d.with(t)
			d.reload(f.config("services:", m.services()))
			if got, want := f.curl("http://"+hostPort(m.vip, portWeb)+"/who"), umlName+" "+m.peer+"\n"; got != want {
				t.Errorf("the server says %q, want %q", got, want)
			}
			c, err := dial(f.client, "udp", hostPort(m.vip, portEcho))
			must(t, err)
			defer c.Close()
			for _, n := range []int{100, 8 << 10} {
				err := say(c, umlName, n)
				for range 3 { // over IPv6 the first with fragments tells the client of the path's MTU
					if err != nil && m.v6() {
						err = say(c, umlName, n)
					}
				}
				if err != nil {
					t.Errorf("%d bytes: %v", n, err)
				}
			}
			if err := f.upload(m.vip, size/4); err != nil {
				t.Errorf("upload: %v", err)
			}
			if got := f.download("http://" + hostPort(m.vip, portWeb) + "/blob"); got.err != nil || got.n != size || got.sum != sum {
				t.Errorf("download: %d bytes of %d, %v", got.n, size, got.err)
			}
		})
	}
	for i, fam := range families {
		client, server, local := []string{umlClient4, umlClient6}[i], []string{uml4, uml6}[i], []string{local4, local6}[i]
		for n, m := range append([]mode{
			{name: "nat " + fam.name, forward: "nat", vip: numbered(fam.vip, 0), server: server},
			{name: "dr " + fam.name, forward: "dr", vip: numbered(fam.vip, 1), server: server},
			{name: "fullnat " + fam.name, forward: "fullnat", vip: numbered(fam.vip, 2), server: server, options: fmt.Sprintf("fullnat: {addresses: [%q]}, ", local)},
		}, modes...) {
			if m.v6() != (fam.vip == vip6) || m.backend != "" {
				continue
			}
			t.Run("sctp "+m.name, func(t *testing.T) {
				f, d := f.with(t), d.with(t)
				d.reload(f.config("services:", fmt.Sprintf("  - {vip: %q, port: %d, protocol: sctp, scheduler: rr, forward: %s, %sbackends: [{address: %q}]}\n",
					m.vip, portSCTP, m.forward, m.options, m.server)))
				call := sctpCall{m.name, netip.MustParseAddrPort(hostPort(client, 30000+n)), netip.MustParseAddrPort(hostPort(m.vip, portSCTP)), true}
				u.call(t, call, func() {
					if x := d.now().Services[0].Backends[0]; x.Active != 1 || x.Inactive != 0 {
						t.Errorf("an association is open, counted %d active and %d inactive", x.Active, x.Inactive)
					}
					if out := d.cli("conns"); !strings.Contains(out, "ESTABLISHED") {
						t.Errorf("no association is established:\n%s", out)
					}
				})
				eventually(t, dialLimit, "the association that has ended counts no more", func() bool {
					x := d.now().Services[0].Backends[0]
					return x.Conns == 1 && x.Active == 0
				})
			})
		}
	}
}
