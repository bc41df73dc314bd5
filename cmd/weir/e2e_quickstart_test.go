package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weir/control"
	"weir/control/host/testnet"
)

// block is a fenced block of a page; its words say what it is: yaml, or sh and where it is typed.
type block struct {
	words []string
	text  string
}

func (b block) is(words ...string) bool {
	return strings.Join(b.words, " ") == strings.Join(words, " ")
}

// blocksOf are the fenced blocks of a page in docs.
func blocksOf(t *testing.T, page string) (all []block) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	for _, m := range regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, block{strings.Fields(m[1]), m[2]})
	}
	return all
}

// reader is somebody who does what a page says.
type reader struct {
	t       *testing.T
	dir     string
	lb      *testnet.Space
	client  *testnet.Space
	servers []*testnet.Space
	daemon  *testnet.Cmd
	log     output
	running func() // is called when the daemon runs; may be nil
}

// newReader makes a network with these servers, all on a switch with the balancer; without an address for the client's side the client is there, too.
func newReader(t *testing.T, clientSide bool, prefix string, addresses ...string) *reader {
	t.Helper()
	needs(t, "sh", "curl", "ip", "sysctl")
	b := &bed{t: t, net: testnet.NewT(t, "wquick"), dir: t.TempDir()}
	r := &reader{t: t, dir: b.dir}
	r.lb, r.client = b.space("lb"), b.space("client")
	b.fabric = b.space("switch")
	must(t, b.fabric.IP("link add br0 type bridge"))
	must(t, b.fabric.IP("link set br0 up"))
	plug := func(s *testnet.Space, dev string) { b.plug(s.Name, testnet.End{Space: s, Name: dev}) }
	if clientSide {
		must(t, b.net.Veth(testnet.End{Space: r.client, Name: "eth0"}, testnet.End{Space: r.lb, Name: "eth1"}))
		plug(r.lb, "eth2")
	} else {
		plug(r.client, "eth0")
		plug(r.lb, "eth0")
	}
	must(t, r.client.Address("eth0", "198.18.0.2/24"))
	for i, a := range addresses {
		s := b.space(fmt.Sprintf("s%d", i+1))
		r.servers = append(r.servers, s)
		plug(s, "eth0")
		must(t, s.Address("eth0", a+prefix))
		name := s.Name
		var l net.Listener
		must(t, s.Exec(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }))
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })}
		go func() { _ = web.Serve(l) }()
		t.Cleanup(func() { web.Close() })
	}
	// The commands of the page find this weir, with a socket of its own.
	must(t, os.WriteFile(filepath.Join(r.dir, "weir"), []byte(fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --socket %s/weir.sock\n", weir(t), r.dir)), 0o755))
	return r
}

// types has a shell run the lines of a block, as written but for the place of the configuration.
func (r *reader) types(s *testnet.Space, text string) *testnet.Cmd {
	c := s.Command("sh", "-eu", "-c", strings.ReplaceAll(text, "/etc/weir/weir.yaml", r.dir+"/weir.yaml"))
	c.Env = append(os.Environ(), "PATH="+r.dir+":"+os.Getenv("PATH"))
	return c
}

func (r *reader) run(s *testnet.Space, text string) string {
	r.t.Helper()
	res := command(r.t, r.types(s, text))
	if res.code != 0 {
		r.t.Fatalf("on %s:\n%s%v\n%s", s.Name, text, res, r.log.String())
	}
	r.t.Logf("%s:\n%s\n%s", s.Name, strings.TrimSpace(text), res.out)
	return res.out
}

// begin starts the daemon of the page, and waits until each server has been asked and is up.
func (r *reader) begin(text string) {
	r.t.Helper()
	r.daemon = r.types(r.lb, "exec "+text)
	r.daemon.Stdout, r.daemon.Stderr = &r.log, &r.log
	must(r.t, r.daemon.Start())
	r.t.Cleanup(func() { _ = r.daemon.Process.Kill(); _ = r.daemon.Wait(); forget(r.lb) })
	client := control.NewClient(r.dir + "/weir.sock")
	eventually(r.t, 20*time.Second, "weir runs and finds all servers up", func() bool {
		var s control.Stats
		if client.Get("/stats", &s) != nil || len(s.Services) == 0 {
			return false
		}
		for _, b := range s.Services[0].Backends {
			if b.State != "up" || b.Check == nil || b.Check.Answers == 0 {
				return false
			}
		}
		return true
	})
}

// does follows the page from one block to the next. What a client fetches is fetched until every server must have answered.
func (r *reader) does(page string) {
	r.t.Helper()
	seen := 0
	for _, b := range blocksOf(r.t, page) {
		switch {
		case b.words[0] == "yaml":
			must(r.t, os.WriteFile(r.dir+"/weir.yaml", []byte(b.text), 0o644))
		case b.is("sh", "balancer", "daemon"):
			r.begin(b.text)
			if r.running != nil {
				r.running()
			}
		case b.words[0] == "sh" && b.words[1] == "balancer":
			r.run(r.lb, b.text)
		case b.words[0] == "sh" && b.words[1] == "server":
			for _, s := range r.servers {
				r.run(s, b.text)
			}
		case b.words[0] == "sh" && b.words[1] == "client":
			r.run(r.client, b.text)
			curl := regexp.MustCompile(`(?m)^curl .*$`).FindString(b.text)
			answers := map[string]bool{}
			for _, a := range strings.Fields(r.run(r.client, "for i in 1 2 3 4 5 6; do "+curl+"; done")) {
				answers[a] = true
			}
			if len(answers) != len(r.servers) {
				r.t.Errorf("%s: %v answered 6 requests, want each of %d servers\n%s", page, answers, len(r.servers), r.run(r.lb, "weir list"))
			}
		default:
			r.t.Errorf("%s: a block for nobody: %q", page, b.words)
			continue
		}
		seen++
	}
	if seen < 6 {
		r.t.Errorf("%s has only %d blocks", page, seen)
	}
	must(r.t, r.daemon.Process.Signal(os.Interrupt))
	if err := r.daemon.Wait(); err != nil {
		r.t.Errorf("weir ended: %v\n%s", err, r.log.String())
	}
}

// TestQuickstartTwoNIC, TestQuickstartOneArm and TestQuickstartCloud do what these pages say, word by word.
func TestQuickstartTwoNIC(t *testing.T) {
	newReader(t, true, "/24", "198.18.1.10", "198.18.1.11").does("quickstart-two-nic.md")
}

func TestQuickstartOneArm(t *testing.T) {
	newReader(t, false, "/24", "198.18.0.10", "198.18.0.11").does("quickstart-one-arm.md")
}

// The host's own address is the VIP: what is at its other ports stays the kernel's.
func TestQuickstartCloud(t *testing.T) {
	r := newReader(t, false, "/24", "198.18.0.10", "198.18.0.11")
	must(t, r.lb.Address("eth0", "198.18.0.1/24"))
	var ssh net.Listener
	must(t, r.lb.Exec(func() (err error) { ssh, err = net.Listen("tcp", "198.18.0.1:22"); return err }))
	defer ssh.Close()
	go accept(ssh, func(c net.Conn) { fmt.Fprintln(c, "SSH-2.0") })
	r.running = func() {
		c, err := dial(r.client, "tcp", "198.18.0.1:22")
		if err == nil {
			_, err = c.Read(make([]byte, 8))
			c.Close()
		}
		if err != nil {
			t.Errorf("SSH beside the service: %v", err)
		}
	}
	r.does("quickstart-cloud.md")
}
