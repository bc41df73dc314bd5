package testnet_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

const prefix = "wxnet"

// crashVar makes this test binary a program that makes a network and dies by the signal it is told, for the tests of what is left then.
const crashVar = "WEIR_TESTNET_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(crashVar) != "" {
		victim()
	}
	os.Exit(m.Run())
}

// victim makes a network with a process in it, says so, and waits for its end.
func victim() {
	n, err := testnet.New(prefix + "v")
	if err == nil {
		n.CloseOnSignal()
		var s *testnet.Space
		if s, err = n.Space("a"); err == nil {
			err = s.Command("sleep", "600").Start()
		}
		fmt.Println(s.File)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	select {}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func space(t *testing.T, n *testnet.Net, name string) *testnet.Space {
	t.Helper()
	s, err := n.Space(name)
	must(t, err)
	return s
}

func TestTwoSpacesTalkOverAVeth(t *testing.T) {
	n := testnet.NewT(t, prefix)
	a, b := space(t, n, "a"), space(t, n, "b")
	must(t, n.Veth(testnet.End{Space: a, Name: "eth0", Queues: 3, MAC: "02:00:00:00:00:0a"}, testnet.End{Space: b, Name: "eth0", MTU: 1400}))
	must(t, a.Address("eth0", "198.18.0.1/24", "2001:db8::1/64"))
	must(t, b.Address("eth0", "198.18.0.2/24", "2001:db8::2/64"))
	must(t, a.Route("default", "198.18.0.2"))
	must(t, a.Route("2001:db8:5::/48", "2001:db8::2"))

	if got := a.MAC("eth0"); got != "02:00:00:00:00:0a" {
		t.Errorf("MAC %s, asked for 02:00:00:00:00:0a", got)
	}
	l, err := a.Host().Link("eth0")
	must(t, err)
	if l.Channels.Rx != 3 || l.Channels.Tx != 3 || l.Driver != "veth" {
		t.Errorf("channels %+v driver %q, want 3 of each and veth", l.Channels, l.Driver)
	}
	if l, err = b.Host().Link("eth0"); err != nil || l.MTU != 1400 {
		t.Errorf("MTU of b %d, %v, want 1400", l.MTU, err)
	}
	for _, at := range []string{"198.18.0.2", "2001:db8::2"} {
		var ln net.Listener
		must(t, b.Exec(func() (err error) { ln, err = net.Listen("tcp", net.JoinHostPort(at, "80")); return err }))
		defer ln.Close()
		go func() {
			if c, err := ln.Accept(); err == nil {
				fmt.Fprint(c, "hello")
				c.Close()
			}
		}()
		var c net.Conn
		must(t, a.Exec(func() (err error) {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(at, "80"), 2*time.Second)
			return err
		}))
		line, _ := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if line != "hello" {
			t.Errorf("over %s came %q, want hello", at, line)
		}
	}
}

func TestExecComesBackWhateverHappens(t *testing.T) {
	n := testnet.NewT(t, prefix)
	s := space(t, n, "a")
	inode := func() (ino uint64) {
		var st unix.Stat_t
		must(t, unix.Stat("/proc/thread-self/ns/net", &st))
		return st.Ino
	}
	before := inode()
	var within uint64
	func() {
		defer func() { _ = recover() }()
		_ = s.Exec(func() error { within = inode(); panic("on purpose") })
	}()
	if within != s.Host().Namespace() || within == before {
		t.Errorf("f ran in namespace %d, the space is %d, ours %d", within, s.Host().Namespace(), before)
	}
	if after := inode(); after != before {
		t.Errorf("in namespace %d after a panic in f, before in %d", after, before)
	}
}

func TestCommandKeepsTheMountsOfTheCaller(t *testing.T) {
	n := testnet.NewT(t, prefix)
	s := space(t, n, "a")
	readlink := func(kind string) string {
		out, err := s.Command("readlink", "/proc/self/ns/"+kind).Output()
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	if got, want := readlink("net"), fmt.Sprintf("net:[%d]", s.Host().Namespace()); got != want {
		t.Errorf("network namespace of the command %s, want %s", got, want)
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	if got := readlink("mnt"); got != ours {
		t.Errorf("mount namespace of the command %s, ours %s", got, ours)
	}
}

func TestCloseEndsWhatRunsInside(t *testing.T) {
	n := testnet.NewT(t, prefix)
	s := space(t, n, "a")
	c := s.Command("sleep", "600")
	must(t, c.Start())
	must(t, n.Close())
	if err := unix.Kill(c.Process.Pid, 0); err == nil {
		t.Errorf("sleep (pid %d) lives after Close", c.Process.Pid)
	}
	if _, err := os.Stat(filepath.Join("/run/netns", s.File)); !os.IsNotExist(err) {
		t.Errorf("%s after Close: %v", s.File, err)
	}
	if err := s.Command("true").Start(); err == nil {
		t.Error("a command starts in a network that is closed")
	}
	must(t, n.Close())
}

func TestNothingIsLeftOfARunThatDied(t *testing.T) {
	testnet.NewT(t, prefix) // skips without root
	for _, tc := range []struct {
		name   string
		signal unix.Signal
		swept  bool // only the next run removes it
	}{
		{"^C: at once", unix.SIGINT, false},
		{"SIGTERM: at once", unix.SIGTERM, false},
		{"SIGKILL: by the next run", unix.SIGKILL, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), crashVar+"=1")
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			line, _ := bufio.NewReader(out).ReadString('\n')
			file := filepath.Join("/run/netns", strings.TrimSpace(line))
			if _, err := os.Stat(file); err != nil {
				t.Fatalf("the victim said %q: %v", line, err)
			}
			must(t, cmd.Process.Signal(tc.signal))
			_ = cmd.Wait()
			if ws := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ws.Signal() != tc.signal {
				t.Errorf("the victim died of %v, want %v", ws.Signal(), tc.signal)
			}
			if _, err := os.Stat(file); (err == nil) != tc.swept {
				t.Errorf("%s after the death: %v", file, err)
			}
			n, err := testnet.New(prefix + "v")
			must(t, err)
			defer n.Close()
			if _, err := os.Stat(file); !os.IsNotExist(err) {
				t.Errorf("%s after the next run began: %v", file, err)
			}
		})
	}
}

func TestALivingRunIsLeftAlone(t *testing.T) {
	first := testnet.NewT(t, prefix)
	s := space(t, first, "a")
	second := testnet.NewT(t, prefix)
	space(t, second, "a")
	if _, err := os.Stat(filepath.Join("/run/netns", s.File)); err != nil {
		t.Errorf("the first network's namespace after a second began: %v", err)
	}
}
