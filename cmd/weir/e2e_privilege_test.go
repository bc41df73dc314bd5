package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// Capabilities by the bits of capabilities(7).
const (
	forTheNetwork = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	whereGiven    = 1<<unix.CAP_IPC_LOCK | 1<<unix.CAP_NET_BIND_SERVICE
	forRoot       = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_CHOWN
)

// statusOf are the lines of /proc/PID/status.
func statusOf(t testing.TB, text string) (lines map[string]string) {
	t.Helper()
	lines = map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		lines[name] = strings.TrimSpace(value)
	}
	return lines
}

// capabilities reads one of the sets of a status.
func capabilities(t testing.TB, status map[string]string, name string) (caps uint64) {
	t.Helper()
	if n, err := fmt.Sscanf(status[name], "%x", &caps); n != 1 || err != nil {
		t.Fatalf("%s is %q: %v", name, status[name], err)
	}
	return caps
}

// privateRun is a command line that gives what follows it a /run of its own, in which nothing of the host's is, after it has run first.
func privateRun(first string) []string {
	return []string{"unshare", "-m", "sh", "-ec", "mount --make-rprivate /; mount -t tmpfs none /run; " + first + ` exec "$@"`, "sh"}
}

// as is setpriv(1) for nobody with these capabilities, ambient ones and no others.
func as(capabilities string) []string {
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all," + capabilities, "--ambient-caps=-all," + capabilities}
}

const everything = "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock"

// TestPrivileges: however weir is started, it has the capabilities that it needs and no others, can get no more, takes up a device that is
// made anew, reloads, and lets checks have none of them unless it is root's.
func TestPrivileges(t *testing.T) {
	needs(t, "unshare", "setpriv")
	needsPins(t)
	for _, x := range []struct {
		name     string
		by, args []string
		uid      string
		most     uint64 // capabilities
	}{
		{name: "by root", uid: "0", most: forTheNetwork | whereGiven | forRoot},
		{name: "by root, as another user", by: privateRun(""), args: []string{"--user", "nobody"}, uid: "65534", most: forTheNetwork | whereGiven},
		{name: "by another user with ambient capabilities", by: append(privateRun("weir prepare --user nobody;"), as(everything)...), uid: "65534",
			most: forTheNetwork | 1<<unix.CAP_IPC_LOCK},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, options{servers: 1})
			b.echoes(8000)
			must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
			must(t, os.Chmod(b.dir, 0o777))
			t.Setenv("PATH", filepath.Dir(weir(t))+":"+os.Getenv("PATH"))
			told := filepath.Join(b.dir, "told")
			check := fmt.Sprintf("{type: exec, command: [/bin/sh, -c, \"cat /proc/self/status > %s.$$ && mv %s.$$ %s\"], interval: 1s}", told, told, told)
			service := func(port int) string {
				return fmt.Sprintf("services: [{vip: %s, port: %d, check: %s, backends: [{address: %s, port: 8000}]}]", vip4, port, check, server4(0))
			}
			d := launchBy(t, x.by, b.lb, b.dir, b.config(service(80)), x.args...)
			d.ready()
			works(t, b.client, hostPort(vip4, 80), 1)
			if log := d.log.String(); strings.Contains(log, "not pinned") {
				t.Errorf("no pins:\n%s", log)
			}

			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
			must(t, err)
			status := statusOf(t, string(text))
			has := capabilities(t, status, "CapEff")
			if has&forTheNetwork != forTheNetwork || has&^x.most != 0 {
				t.Errorf("CapEff is %#x: must have %#x and at most %#x", has, uint64(forTheNetwork), x.most)
			}
			if permitted := capabilities(t, status, "CapPrm"); permitted != has {
				t.Errorf("CapPrm is %#x, CapEff %#x", permitted, has)
			}
			if status["NoNewPrivs"] != "1" || !strings.HasPrefix(status["Uid"], x.uid+"\t"+x.uid+"\t"+x.uid+"\t") || status["Name"] != "weir" {
				t.Errorf("NoNewPrivs %s, Uid %s, Name %s", status["NoNewPrivs"], status["Uid"], status["Name"])
			}
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.pid()))
			must(t, err)
			for _, task := range tasks { // a thread that a check has been started on has none, for the moment that it lives
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", d.pid(), task.Name()))
				if err == nil && capabilities(t, statusOf(t, string(text)), "CapEff")&^has != 0 {
					t.Errorf("thread %s has more:\n%s", task.Name(), text)
				}
			}

			var checker string
			eventually(t, 20*time.Second, "the check has run", func() bool {
				text, err := os.ReadFile(told)
				checker = string(text)
				return err == nil
			})
			if uid, caps := statusOf(t, checker)["Uid"], capabilities(t, statusOf(t, checker), "CapEff"); !strings.HasPrefix(uid, x.uid+"\t") || x.uid != "0" && caps != 0 {
				t.Errorf("a check is of user %s with capabilities %#x", uid, caps)
			}

			d.reload(b.config(service(81)))
			works(t, b.client, hostPort(vip4, 81), 1)
			must(t, b.lb.IP("link del wan"))
			d.warns("wan", true)
			must(t, b.net.Veth(testnet.End{Space: b.client, Name: "eth0", MAC: clientMAC}, testnet.End{Space: b.lb, Name: "wan", MAC: wanMAC}))
			must(t, b.lb.Address("wan", wan4+"/24"))
			must(t, b.client.Address("eth0", client4+"/24"))
			must(t, b.client.Route("198.18.9.0/24", wan4))
			d.warns("wan", false)
			works(t, b.client, hostPort(vip4, 81), 1)
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}

// TestMissingCapabilities: each of those that weir needs is asked for by name, with exit code 6, and so is the right to lock memory.
func TestMissingCapabilities(t *testing.T) {
	needs(t, "unshare", "setpriv", "prlimit")
	b := newBed(t, options{servers: 1})
	must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
	must(t, os.Chmod(b.dir, 0o777))
	file := filepath.Join(b.dir, "weir.yaml")
	must(t, os.WriteFile(file, []byte(b.tcp()), 0o644))
	for _, x := range []struct{ name, bit string }{
		{"CAP_NET_ADMIN", "+net_admin"}, {"CAP_NET_RAW", "+net_raw"}, {"CAP_BPF", "+bpf"}, {"CAP_PERFMON", "+perfmon"}, {"CAP_IPC_LOCK", "+ipc_lock"},
	} {
		t.Run(x.name, func(t *testing.T) {
			rest := strings.Trim(strings.ReplaceAll(strings.ReplaceAll(everything, x.bit, ""), ",,", ","), ",")
			line := append([]string{"prlimit", "--memlock=65536:65536"}, as(rest)...)
			line = append(line, weir(t), "run", "-c", file, "--socket", filepath.Join(b.dir, "weir.sock"))
			r := command(t, b.lb.Command(line[0], line[1:]...))
			if r.code != 6 || !strings.Contains(r.errors, x.name+" (") || strings.Count(r.errors, "CAP_") != 1 {
				t.Errorf("%v, want exit 6 and this capability named alone", r)
			}
		})
	}
	t.Run("--user needs root", func(t *testing.T) {
		c := exec.Command(weir(t), "run", "-c", file, "--user", "root")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if r := command(t, c); r.code != 6 || !strings.Contains(r.errors, "CAP_SETUID") {
			t.Errorf("%v, want exit 6", r)
		}
	})
	t.Run("no such user", func(t *testing.T) {
		if r := command(t, exec.Command(weir(t), "run", "-c", file, "--user", "no-such-user")); r.code != 2 || !strings.Contains(r.errors, "no-such-user") {
			t.Errorf("%v", r)
		}
	})
}

// TestCleanupBesideAWeirOfAnother: who may not ask whether a weir is alive removes nothing of it, whatever rights he has.
func TestCleanupBesideAWeirOfAnother(t *testing.T) {
	needs(t, "setpriv")
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
	must(t, os.Chmod(b.dir, 0o755))
	d := b.start(b.tcp())
	works(t, b.client, hostPort(vip4, 80), 1)
	line := append(as("+net_admin,+net_raw"), weir(t), "cleanup", "--socket", d.socket)
	if r := command(t, b.lb.Command(line[0], line[1:]...)); r.code != 6 || r.out != "" || !strings.Contains(r.errors, "permission denied (it is for root") {
		t.Errorf("%v, want exit 6, who may use the socket, and nothing removed", r)
	}
	works(t, b.client, hostPort(vip4, 80), 1)
}

// TestUpgradeWithoutRoot: a weir that is not root's is followed by its own child on SIGUSR2, which has the rights that it had and no others, and in
// turn by that one's.
func TestUpgradeWithoutRoot(t *testing.T) {
	needs(t, "unshare", "setpriv")
	needsPins(t)
	for _, x := range []struct {
		name     string
		by, args []string
	}{
		{"as another user", privateRun(""), []string{"--user", "nobody"}},
		{"by another user with ambient capabilities", append(privateRun("weir prepare --user nobody;"), as(everything)...), nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, options{})
			b.listen(0, 8000, echo)
			must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
			must(t, os.Chmod(b.dir, 0o777))
			t.Setenv("PATH", filepath.Dir(weir(t))+":"+os.Getenv("PATH"))
			d := launchBy(t, x.by, b.lb, b.dir, b.config("services:\n", b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0)), x.args...)
			d.ready()
			rights := func(pid int) string {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				must(t, err)
				s := statusOf(t, string(text))
				return fmt.Sprint(s["Uid"], s["Gid"], s["CapEff"], s["CapPrm"], s["CapAmb"], s["NoNewPrivs"])
			}
			pid := d.pid()
			first := rights(pid)
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			c := conversation(t, b)
			must(t, c.round(handTime))
			for range 2 {
				s := d.upgraded(pid)
				pid = s.PID
				if now := rights(pid); now != first {
					t.Errorf("the successor's rights are %s, were %s", now, first)
				}
				must(t, c.round(handTime))
				for _, w := range s.Warnings {
					t.Errorf("warning: %s", w)
				}
			}
			d.ends(pid)
			pid = d.pid()
			if strings.Contains(d.log.String(), "level=ERROR") {
				t.Errorf("errors:\n%s", d.log)
			}
		})
	}
}
