package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/control"
	"weir/control/config"
	"weir/control/importer"
)

// TestImportCommand runs the command as a user does: what it prints, what it lists, and how it ends.
func TestImportCommand(t *testing.T) {
	dir := t.TempDir()
	rules, bad := filepath.Join(dir, "rules"), filepath.Join(dir, "bad")
	write(t, rules, "-A -t 198.18.9.9:80 -s rr\n-a -t 198.18.9.9:80 -r 198.18.1.10:8000 -m\n-A -f 7\n")
	write(t, bad, "-A -t 198.18.9.9:80 -s rr\n-A -t 198.18.9.9:80 -s rr\n-X\n")
	listing := filepath.Join(dir, "listing")
	write(t, listing, "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  198.18.9.9:80 rr\n")
	conf := filepath.Join(dir, "keepalived.conf")
	write(t, conf, "virtual_server 198.18.9.9 80 {\n protocol TCP\n @one weight 4\n real_server 198.18.1.10 80 {\n TCP_CHECK { warmup 1 }\n }\n}\n")
	for _, x := range []struct {
		name, stdin string
		args        []string
		code        int
		stdout      []string // words of it, none: nothing is printed
		stderr      []string
	}{
		{name: "rules on standard input", stdin: rules, args: []string{"ipvsadm"},
			stdout: []string{"vip: 198.18.9.9", "- name: wan", "interface: eth0"}, stderr: []string{"stdin:3: note: firewall mark 7"}},
		{name: "rules in a file", args: []string{"ipvsadm", rules}, stdout: []string{"8000"}, stderr: []string{rules + ":3: note: "}},
		{name: "ports that the user names", args: []string{"ipvsadm", rules, "--port", "wan=eth1", "--port=lan=eth2"},
			stdout: []string{"name: wan", "interface: eth1", "name: lan", "interface: eth2"}},
		{name: "every error at once", args: []string{"ipvsadm", bad}, code: exitInvalid,
			stderr: []string{bad + ":2: error: ", bad + `:3: error: unknown option "-X"`}},
		{name: "a listing instead of rules", args: []string{"ipvsadm", listing}, code: exitInvalid, stderr: []string{listing + ":1: error: this is a listing, as of ipvsadm -Ln: give what `ipvsadm-save -n` prints\n"}},
		{name: "no such file", args: []string{"ipvsadm", dir + "/none"}, code: exitUsage, stderr: []string{"no such file"}},
		{name: "a directory", args: []string{"keepalived", dir}, code: exitUsage, stderr: []string{"is a directory"}},
		{name: "nothing to import", args: nil, code: exitUsage, stderr: []string{"ipvsadm or keepalived"}},
		{name: "something else", args: []string{"haproxy"}, code: exitUsage},
		{name: "a port without a device", args: []string{"ipvsadm", rules, "--port", "wan"}, code: exitUsage, stderr: []string{"NAME=INTERFACE"}},
		{name: "a port that cannot be", args: []string{"ipvsadm", rules, "--port", "wan=an-interface-that-is-too-long"}, code: exitUsage, stderr: []string{"interface"}},
		{name: "keepalived without a file", args: []string{"keepalived"}, code: exitUsage},
		{name: "keepalived", args: []string{"keepalived", conf, "-i", "one"}, stdout: []string{"weight: 4", "check: {type: tcp, interval: 60s"}, stderr: []string{conf + ":5: note: warmup"}},
		{name: "keepalived on another host", args: []string{"keepalived", conf, "--config-id=two"}, stdout: []string{"weight: 1"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			code, stdout, stderr := runIn(t, x.stdin, append([]string{"import"}, x.args...))
			if code != x.code {
				t.Errorf("exit %d, want %d\n%s", code, x.code, stderr)
			}
			for _, w := range x.stdout {
				if !strings.Contains(stdout, w) {
					t.Errorf("standard output lacks %q:\n%s", w, stdout)
				}
			}
			if code != 0 && strings.Contains(stdout, "version: 1") {
				t.Errorf("printed a configuration in spite of the errors:\n%s", stdout)
			}
			for _, w := range x.stderr {
				if !strings.Contains(stderr, w) {
					t.Errorf("standard error lacks %q:\n%s", w, stderr)
				}
			}
			if code == 0 {
				if _, diags := config.Parse("printed", []byte(stdout)); config.HasErrors(diags) {
					t.Errorf("%v\n%s", config.Errors(diags), stdout)
				}
			}
		})
	}
}

// runIn runs a command in this process, with a file as its standard input.
func runIn(t *testing.T, stdin string, args []string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	if stdin == "" {
		stdin = os.DevNull
	}
	in, err := os.Open(stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	was := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	defer func() { os.Stdin, os.Stdout, os.Stderr = was[0], was[1], was[2] }()
	out, _ := os.Create(filepath.Join(dir, "out"))
	errs, _ := os.Create(filepath.Join(dir, "err"))
	os.Stdin, os.Stdout, os.Stderr = in, out, errs
	code = run(args)
	out.Close()
	errs.Close()
	return code, read(t, dir, "out"), read(t, dir, "err")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestImportedRulesRun has the engine itself compile tables of a real kernel, and lists what it then has.
func TestImportedRulesRun(t *testing.T) {
	for _, dir := range kernelTables(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := importer.IPVSAdm("saved", []byte(read(t, dir, "saved")), importer.Options{})
			tmp := t.TempDir()
			conf, in, counters := filepath.Join(tmp, "weir.yaml"), filepath.Join(tmp, "in.pcap"), filepath.Join(tmp, "counters.json")
			write(t, conf, strings.Replace(string(r.Config), "interface: eth0",
				"mac: 02:00:00:00:01:0c\n    addresses: [198.18.0.1/15, 2001:db8::1/32]", 1))
			write(t, in, "\x4d\x3c\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00") // no frames
			var said strings.Builder
			if err := control.Replay(control.ReplayOptions{Config: conf, In: []control.PortFile{{Port: "wan", File: in}}, Counters: counters, Stderr: &said}); err != nil {
				t.Fatalf("%v\n%s", err, said.String())
			}
			var stats control.Stats
			if err := json.Unmarshal([]byte(read(t, counters)), &stats); err != nil {
				t.Fatal(err)
			}
			sortIPVSAdm(stats.Services)
			var b strings.Builder
			printIPVSAdm(&b, stats.Services, 4096)
			if want := read(t, dir, "listed"); b.String() != want {
				t.Errorf("the engine has:\n%s\nthe kernel had:\n%s", b.String(), want)
			}
		})
	}
}
