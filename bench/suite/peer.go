package suite

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"weir/control/host/testnet"
)

// peer is one that forwards.
type peer struct {
	name  string
	needs []string // programs
	start func(*session, *bed) (*running, error)
}

// running is a peer at work.
type running struct {
	command string   // how it was started, for the report
	mode    string   // of its driver
	target  []string // what the generator must be told: addresses
	url     string   // for TCP
	pid     int      // whose CPU time counts; 0: the kernel's alone
	stop    func() error
}

// The peers of packets.
var (
	weirNAT     = peer{name: "weir", start: startWeir}
	weirAgain   = peer{name: "weir again", start: startWeir} // the control
	weirRings   = peer{name: "weir by rings", start: startWeirBy("xdp_send: ring")}
	weirPackets = peer{name: "weir by packet sockets", start: startWeirBy("driver: af_packet")}
	bare        = peer{name: "bare AF_XDP", start: startBare}
	pmdXDP      = peer{name: "testpmd af_xdp", needs: []string{"dpdk-testpmd"}, start: testpmd("net_af_xdp")}
	pmdPacket   = peer{name: "testpmd af_packet", needs: []string{"dpdk-testpmd"}, start: testpmd("net_af_packet")}
	routing     = peer{name: "kernel forwarding", start: startRouting}
	nftNAT      = peer{name: "nftables DNAT", needs: []string{"nft"}, start: startNFT}
)

// missing names the programs that p needs and the machine lacks.
func (p *peer) missing() error {
	for _, n := range p.needs {
		if _, err := exec.LookPath(n); err != nil {
			return fmt.Errorf("%s: needs %s, which is not there", p.name, n)
		}
	}
	return nil
}

// output keeps the end of what a program says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 1<<16 {
		o.b.Reset()
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// spawn starts a program in a namespace and waits until ready says that it works.
func spawn(space *testnet.Space, ready func() bool, name string, args ...string) (*running, error) {
	return spawnWatched(space, &output{}, ready, nil, name, args...)
}

// spawnWatched is spawn for a program whose output tells, and that wants more in its environment. Its standard input stays open and empty.
func spawnWatched(space *testnet.Space, said *output, ready func() bool, env []string, name string, args ...string) (*running, error) {
	c := space.Command(name, args...)
	c.Stdout, c.Stderr, c.Env = said, said, append(os.Environ(), env...)
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.Stdin = in
	defer in.Close()
	c.WaitDelay = time.Second // for children that outlive it and hold its output
	if err := c.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	r := &running{command: shown(append([]string{name}, args...)), pid: c.Process.Pid}
	r.stop = func() error {
		defer out.Close()
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = c.Process.Kill()
			<-ended
		}
		return nil
	}
	for deadline := time.Now().Add(30 * time.Second); !ready(); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-ended:
			out.Close()
			return nil, fmt.Errorf("%s ended: %v: %s", r.command, err, tail(said.String()))
		default:
		}
		if time.Now().After(deadline) {
			_ = r.stop()
			return nil, fmt.Errorf("%s is not ready after 30 s: %s", r.command, tail(said.String()))
		}
	}
	return r, nil
}

// shown is a command as a report has it: files by their names, for where they lay is gone.
func shown(words []string) string {
	names := make([]string, len(words))
	for i, w := range words {
		if names[i] = w; filepath.IsAbs(w) {
			names[i] = filepath.Base(w)
		}
	}
	return strings.Join(names, " ")
}

// tail is the end of a text, on one line.
func tail(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		s = "..." + s[len(s)-400:]
	}
	return s
}

// quietly runs a program in a namespace to its end.
func quietly(space *testnet.Space, stdin string, name string, args ...string) error {
	c := space.Command(name, args...)
	if stdin != "" {
		c.Stdin = strings.NewReader(stdin)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out)))
	}
	return nil
}

func direct() []string { return []string{"--dst", server, "--dst-port", fmt.Sprint(port)} }

func toVIP() []string { return []string{"--dst", vip, "--dst-port", fmt.Sprint(vipPort)} }
