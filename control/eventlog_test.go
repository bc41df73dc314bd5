package control

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"weir/control/events"
)

// TestServeEvents asks for events by all that a request may say.
func TestServeEvents(t *testing.T) {
	c := &Control{events: events.NewLog(8)}
	for _, e := range []events.Event{{Level: "info", Kind: "daemon", Message: "a"}, {Level: "warn", Kind: "health", Message: "b"},
		{Level: "error", Kind: "reload", Message: "c"}, {Level: "info", Kind: "health", Message: "d"}} {
		c.events.Add(e)
	}
	ask := func(query string) (status int, messages, body string) {
		w := httptest.NewRecorder()
		v, err := c.serveEvents(httptest.NewRequest(http.MethodGet, "/events?"+query, nil))
		answer(w, v, err)
		var all []events.Event
		if w.Code == http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
		}
		for _, e := range all {
			messages += e.Message
		}
		return w.Code, messages, w.Body.String()
	}
	for query, want := range map[string]string{
		"": "abcd", "after=0": "abcd", "after=2": "cd", "after=4": "", "after=99": "abcd", "limit=0": "abcd", "limit=3": "bcd", "limit=9": "abcd",
		"kind=health": "bd", "kind=health&limit=1": "d", "kind=none": "", "level=info": "abcd", "level=warn": "bc", "level=error": "c",
		"level=warn&kind=health": "b", "kind=&level=&wait=0s": "abcd", "after=1&kind=health": "bd", "after=4&wait=1ms": "",
	} {
		if status, got, body := ask(query); status != 200 || got != want {
			t.Errorf("%q: %d %q, want %q\n%s", query, status, got, want, body)
		}
	}
	for _, query := range []string{"after=-1", "after=x", "limit=-1", "limit=x", "level=loud", "wait=2m", "wait=-1s", "wait=x"} {
		if status, _, body := ask(query); status != 400 || !strings.Contains(body, strings.SplitN(query, "=", 2)[0]) {
			t.Errorf("%q: %d %s", query, status, body)
		}
	}

	// Whoever waits for a kind is not woken for good by another.
	go func() {
		c.events.Add(events.Event{Level: "info", Kind: "port", Message: "e"})
		time.Sleep(time.Millisecond)
		c.events.Add(events.Event{Level: "info", Kind: "reload", Message: "f"})
	}()
	if status, got, _ := ask("after=4&kind=reload&wait=30s"); status != 200 || got != "f" {
		t.Errorf("waiting: %d %q", status, got)
	}
}
