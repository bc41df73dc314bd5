package main_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/control/events"
)

// TestEvents asks a daemon what has happened, and waits for what happens.
func TestEvents(t *testing.T) {
	b := newBed(t, options{servers: 1})
	config := b.config("services:", b.service(vip4, "name: web, port: 80, protocol: tcp", 8000))
	d := b.start(config, "--log", "error") // the log's level is not the events'
	eventually(t, dialLimit, "running", func() bool {
		return strings.Contains(d.cli("events", "--kind", "daemon"), " info  daemon   running config=")
	})
	_, following := background(t, b.lb, weir(t), "events", "-f", "--kind", "reload", "--socket", d.socket)
	d.write("version: 1\nservices: 7\n")
	d.try("reload")
	d.reload(config)
	var all []events.Event
	must(t, json.Unmarshal([]byte(d.cli("events", "--kind", "reload", "-o", "json")), &all))
	if n := len(all); n < 3 || all[n-1].Fields.Get("changed") != "services +0 -0 ~0, generation 2" || all[n-1].Level != "info" || all[n-2].Level != "error" ||
		!slices.IsSortedFunc(all, func(a, b events.Event) int { return int(a.Seq) - int(b.Seq) }) {
		t.Errorf("%+v", all)
	}
	eventually(t, 20*time.Second, "who follows is told of both", func() bool {
		text := following.String()
		return strings.Contains(text, `changed="services +0 -0 ~0, generation 2"`) && strings.Contains(text, "reload refused, the old configuration stays")
	})
	must(t, b.lb.IP("link set lan down"))
	eventually(t, 20*time.Second, "a port that goes down", func() bool {
		return strings.Contains(d.cli("events", "--level", "warn", "--limit", "50"), ` warn  port     port port=lan err="the device is down"`)
	})
	if out := d.cli("events", "--limit", "1"); strings.Count(out, "\n") != 1 {
		t.Errorf("--limit 1: %q", out)
	}
	if r := d.try("events", "--level", "loud"); r.code != 1 || !strings.Contains(r.errors, `level "loud"`) {
		t.Errorf("--level loud: %v", r)
	}
	if r := d.try("events", "-o", "ipvsadm"); r.code != 2 {
		t.Errorf("-o ipvsadm: %v", r)
	}
	if strings.Contains(d.log.String(), "level=INFO") {
		t.Errorf("the log has what it was told to leave out:\n%s", d.log)
	}
}
