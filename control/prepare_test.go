package control

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinkSocket: the socket's usual name leads to where it is, unless something else that is used has it.
func TestLinkSocket(t *testing.T) {
	dir := t.TempDir()
	name, to := filepath.Join(dir, "weir.sock"), filepath.Join(dir, "run", "weir.sock")
	if err := os.Mkdir(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	listen := func(path string) *net.UnixListener {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() })
		return l
	}
	for _, x := range []struct {
		what  string
		make  func() // what has the name
		leads bool
		err   string
	}{
		{"nothing", func() {}, true, ""},
		{"the link", func() { _ = os.Symlink(to, name) }, true, ""},
		{"a socket that nobody listens on", func() { listen(name).Close() }, true, ""},
		{"a socket that somebody listens on", func() { listen(name) }, false, ""},
		{"another link", func() { _ = os.Symlink(dir, name) }, false, "a link to somewhere else"},
		{"a file", func() { _ = os.WriteFile(name, nil, 0o600) }, false, "a file of that name"},
	} {
		_ = os.Remove(name)
		x.make()
		err := linkSocket(name, to)
		if x.err == "" && err != nil || x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err)) {
			t.Errorf("%s: %v, want %q", x.what, err, x.err)
		}
		if leads := socketFile(name) == to; leads != x.leads {
			t.Errorf("%s: %s leads to %s", x.what, name, socketFile(name))
		}
	}
	_ = os.Remove(name)
	if err := os.Symlink("run/weir.sock", name); err != nil { // relative
		t.Fatal(err)
	}
	for range 2 { // the second time in place of the first one's, which nobody answers on any more
		l, err := listenAdmin(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(to); err != nil || info.Mode()&os.ModeSocket == 0 {
			t.Errorf("no socket at %s: %v", to, err)
		}
		if pid, err := peerPID(name); err != nil || int(pid) != os.Getpid() {
			t.Errorf("by its name: pid %d, %v", pid, err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
}
