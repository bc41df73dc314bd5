package main_test

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/control"
	"weir/control/handover"
)

// TestReloadDuringATakeover: a SIGHUP that comes while a successor prepares, which has read the file already, is not forgotten. The weir reloads if it goes
// on, and else its successor does.
func TestReloadDuringATakeover(t *testing.T) {
	needsPins(t)
	b := newBed(t, options{})
	b.listen(0, 8000, echo)
	one, two, three := b.service(vip4, "port: 80, protocol: tcp", 8000, 1, 0, 0), b.service(vip4, "port: 81, protocol: tcp", 8000, 1, 0, 0),
		b.service(vip4, "port: 82, protocol: tcp", 8000, 1, 0, 0)
	d := b.start(b.config("services:\n", one))
	const asked = "a successor asks to take over"
	told := func() { // while the successor does nothing
		d.signal(syscall.SIGHUP)
		time.Sleep(100 * time.Millisecond)
		if s := view[control.Status](d, "status"); s.PID != d.pid() || s.Generation != 1 {
			t.Errorf("pid %d, generation %d while a successor prepares", s.PID, s.Generation)
		}
	}

	h, err := handover.Dial(d.socket, takeoverVersion, handTime)
	must(t, err)
	files, err := h.Receive(handTime, "offer", &json.RawMessage{})
	must(t, err)
	handover.Close(files)
	d.write(b.config("services:\n", one, two))
	told()
	h.Abort(errors.New("for a test"))
	eventually(t, handTime, "it reloads, as it goes on", func() bool { return view[control.Status](d, "status").Generation == 2 })
	works(t, b.client, hostPort(vip4, 81), 1)

	d.kill()
	d = b.start(b.config("services:\n", one))
	next := launch(t, b.lb, b.dir, b.config("services:\n", one, two), "--takeover")
	for end := time.Now().Add(handTime); !strings.Contains(d.log.String(), asked) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	next.signal(syscall.SIGSTOP) // it takes tens of milliseconds to prepare
	d.write(b.config("services:\n", one, three))
	told()
	next.signal(syscall.SIGCONT)
	next.ready()
	eventually(t, handTime, "its successor reloads", func() bool { return view[control.Status](next, "status").Generation == 3 })
	works(t, b.client, hostPort(vip4, 82), 1)
}
