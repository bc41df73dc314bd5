package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/control"
)

// begun starts a capture or trace and waits until the daemon observes.
func (d *daemon) begun(args ...string) (out *output, cmd *exec.Cmd) {
	d.t.Helper()
	before := strings.Count(d.log.String(), "observing")
	out = &output{}
	cmd = exec.Command(weir(d.t), append(args, "--socket", d.socket)...)
	cmd.Stdout, cmd.Stderr = out, out
	must(d.t, cmd.Start())
	d.t.Cleanup(func() { _ = cmd.Process.Kill() })
	d.saw("observing", before+1)
	return out, cmd
}

// saw waits until a word is so many times in the daemon's log.
func (d *daemon) saw(word string, n int) {
	d.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); strings.Count(d.log.String(), word) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("%q is %d times in the log, want %d", word, strings.Count(d.log.String(), word), n)
		}
	}
}

// TestSight observes a real daemon: a capture that tshark reads, a trace of what is dropped and of what is scheduled, a client that is killed.
func TestSight(t *testing.T) {
	b := newBed(t, options{servers: 2})
	b.echoes(8000)
	d := b.start(b.config("services:", b.service(vip4, "name: web, port: 80, protocol: tcp, scheduler: rr", 8000, 1, 1)+
		b.service(vip4, "name: shut, port: 81, protocol: tcp, scheduler: rr, deny: [198.18.0.0/24]", 8000, 1)))
	for i := range 2 { // makes all neighbours known, so that nothing waits for one
		c, err := dialFrom(b.client, "tcp", fmt.Sprintf("198.18.0.2:%d", 20010+i), hostPort(vip4, 80))
		must(t, err)
		must(t, pingPong(c, dialLimit))
		c.Close()
	}
	d.settled()
	file := filepath.Join(t.TempDir(), "a.pcapng")
	_, capture := d.begun("capture", "-w", file, "--host", "198.18.0.2", "--duration", "1h")
	trace, tracing := d.begun("trace", "-o", "json", "--stage", "dropped")
	shown, showing := d.begun("trace", "--service", "web", "--count", "1")

	c, err := dialFrom(b.client, "tcp", "198.18.0.2:20001", hostPort(vip4, 80))
	must(t, err)
	must(t, pingPong(c, dialLimit))
	c.Close()
	if c, err := dialFrom(b.client, "tcp", "198.18.0.2:20002", hostPort(vip4, 81)); err == nil {
		c.Close()
		t.Error("a denied client has a connection")
	}
	must(t, showing.Wait())
	for _, line := range []string{" wan 198.18.0.2:20001 > 198.18.9.9:80 tcp SYN", "    service     web, rr\n", "    connection  new SYN_RECV, 198.18.0.2:20001 -> 198.18.9.9:80, from the client\n",
		" by nat, rr chose it (weight 1, now ", "    way         port lan, next hop 198.18.1.1", "    sent        lan 198.18.0.2:20001 > 198.18.1.1", "    verdict     forwarded\n", "1 packets\n"} {
		if !strings.Contains(shown.String(), line) {
			t.Errorf("there is no %q in\n%s", line, shown)
		}
	}
	time.Sleep(100 * time.Millisecond) // five times the period in which rings are emptied
	must(t, capture.Process.Signal(os.Interrupt))
	must(t, tracing.Process.Signal(os.Interrupt))
	if err := capture.Wait(); err != nil {
		t.Errorf("capture: %v", err)
	}
	if err := tracing.Wait(); err != nil {
		t.Errorf("trace: %v\n%s", err, trace)
	}
	var v control.TraceView
	if err := json.NewDecoder(strings.NewReader(trace.String())).Decode(&v); err != nil || v.Drop != "denied" || v.Verdict != "dropped" || v.Service != "shut" || v.Why == "" || v.Frame.Port != "wan" {
		t.Errorf("the trace of drops: %+v, %v\n%s", v, err, trace)
	}
	if _, err := exec.LookPath("tshark"); err == nil {
		out, err := exec.Command("tshark", "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "tcp.dstport", "-e", "frame.comment").Output()
		must(t, err)
		for _, want := range []string{
			"wan|0x00000001|80|stage=received verdict=forwarded service=web conn=new from=client state=SYN_RECV backend=",
			"lan|0x00000002|8000|stage=sent verdict=forwarded service=web conn=new from=client state=SYN_RECV backend=",
			"wan|0x00000001|81|stage=dropped verdict=dropped drop=denied (", "wan|0x00000002|20001|stage=sent",
		} {
			if !strings.Contains(string(out), want) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
	}

	ended := strings.Count(d.log.String(), "msg=observed")
	_, killed := d.begun("capture", "-w", filepath.Join(t.TempDir(), "b.pcapng"))
	must(t, killed.Process.Kill())
	_ = killed.Wait()
	d.saw("msg=observed", ended+1) // nobody observes any more
	for i := range 5 {
		if i < 4 {
			d.begun("trace", "--host", "192.0.2.1")
		} else if r := d.try("trace"); r.code != 1 || !strings.Contains(r.String(), "4 captures and traces run already") {
			t.Errorf("a fifth: %v", r)
		}
	}
	for _, x := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"trace", "--drop", "nothing"}, 1, "there is no such reason"},
		{[]string{"trace", "--service", "nobody"}, 1, "no such service: nobody"},
		{[]string{"trace", "--on", "eth7"}, 1, "there is no such port (" + strings.Join(b.ports(), ", ")},
		{[]string{"trace", "-o", "table"}, 2, "trace has text and json"},
		{[]string{"capture"}, 2, "-w FILE"},
	} {
		if r := d.try(x.args...); r.code != x.code || !strings.Contains(r.String(), x.says) {
			t.Errorf("%q: %v, want exit %d and %q", x.args, r, x.code, x.says)
		}
	}
	begin := time.Now()
	if code := d.stop(); code != 0 {
		t.Errorf("stopped with %d while observed", code)
	}
	t.Logf("stopped in %v while four observed", time.Since(begin))
}
