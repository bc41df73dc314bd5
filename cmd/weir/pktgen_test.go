package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"weir/bench"
	"weir/control/host/testnet"
)

// TestPktgenCommand runs the command as a user does: what it prints, and how it ends.
func TestPktgenCommand(t *testing.T) {
	for _, x := range []struct {
		name   string
		args   string
		code   int
		stdout string // a word of it
		stderr string
	}{
		{name: "on memory", args: "--driver mem --count 1000 --size imix --flows 50 --max-loss 0 --drain 30s", stdout: "received   1000 frames"},
		{name: "there and back, paced", args: "--driver mem --count 200 --echo --rate 10k --drain 30s", stdout: "of it lag"},
		{name: "connections", args: "--driver mem --count 100 --traffic connect --respond --max-loss 0.1% --drain 30s", stdout: "established 100"},
		{name: "connections that nobody accepts", args: "--driver mem --count 10 --traffic connect --drain 1ms --max-loss 99%", code: exitFailed, stderr: "--max-loss"},
		{name: "all may be lost", args: "--driver mem --count 10 --traffic connect --drain 1ms --max-loss 1", stdout: "unanswered 10"},
		{name: "no port", args: "", code: exitUsage, stderr: "a port is needed"},
		{name: "no such port", args: "--tx nosuch0 --dst-mac 02:00:00:00:00:01", code: exitFailed, stderr: "nosuch0"},
		{name: "neither", args: "--tx-only --rx-only", code: exitUsage, stderr: "neither"},
		{name: "receive what one sends", args: "--rx-only --tx a --rx b", code: exitUsage, stderr: "--rx-only"},
		{name: "send to nobody", args: "--tx-only --tx a --rx b", code: exitUsage, stderr: "who receives"},
		{name: "a rate", args: "--driver mem --rate fast", code: exitUsage, stderr: "--rate"},
		{name: "no rate", args: "--driver mem --rate 0", code: exitUsage, stderr: "or max"},
		{name: "a size", args: "--driver mem --size 60", code: exitUsage, stderr: "--size"},
		{name: "a loss", args: "--driver mem --max-loss 2", code: exitUsage, stderr: "0% to 100%"},
		{name: "addresses", args: "--driver mem --src 198.18.0", code: exitUsage, stderr: "--src"},
		{name: "two families", args: "--driver mem --src 2001:db8::1", code: exitUsage, stderr: "different families"},
		{name: "a MAC address", args: "--driver mem --dst-mac 02:00", code: exitUsage, stderr: "six bytes"},
		{name: "an output", args: "--driver mem -o ipvsadm", code: exitUsage, stderr: "table and json"},
		{name: "an argument", args: "g0", code: exitUsage},
	} {
		t.Run(x.name, func(t *testing.T) {
			code, stdout, stderr := runIn(t, "", append([]string{"pktgen"}, strings.Fields(x.args)...))
			if code != x.code || !strings.Contains(stdout, x.stdout) || !strings.Contains(stderr, x.stderr) {
				t.Errorf("exit %d, want %d\n%s%s", code, x.code, stdout, stderr)
			}
		})
	}
	t.Run("JSON", func(t *testing.T) {
		code, stdout, stderr := runIn(t, "", strings.Fields("pktgen --driver mem --count 100 -o json --drain 30s"))
		var r bench.Report
		if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
			t.Fatalf("exit %d, %v\n%s", code, err, stderr)
		}
		if r.Sent != 100 || r.Received != 100 || r.Driver != "mem" || r.Traffic.Kind != bench.UDP || r.Latency.Samples != 100 || len(r.Ports) != 2 {
			t.Errorf("%+v", r)
		}
	})
}

// A device that forwards nothing loses all, which --max-loss notices.
func TestPktgenLoss(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	n, err := testnet.New("wloss")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { n.Close() })
	s, err := n.Space("gen")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"g0", "d0"}, {"g1", "d1"}} {
		if err := n.Veth(testnet.End{Space: s, Name: pair[0]}, testnet.End{Space: s, Name: pair[1]}); err != nil {
			t.Fatal(err)
		}
	}
	err = s.Exec(func() error {
		code, stdout, stderr := runIn(t, "", strings.Fields("pktgen --driver af_packet --tx g0 --rx g1 --dst-mac 02:00:00:00:00:01 --count 100 --max-loss 50% -q"))
		if code != exitFailed || !strings.Contains(stdout, "lost       100 (100.0") || !strings.Contains(stderr, "--max-loss") {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
