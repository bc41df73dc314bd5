package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestHandler logs lines and looks at the events that they become.
func TestHandler(t *testing.T) {
	long := strings.Repeat("é", maxText)
	for _, x := range []struct {
		name string
		log  func(l *slog.Logger)
		want []Event
	}{
		{"a line", func(l *slog.Logger) { l.Info("running", "workers", 2, "config", "weir.yaml") },
			[]Event{{Level: "info", Kind: General, Message: "running", Fields: Fields{{"workers", "2"}, {"config", "weir.yaml"}}}}},
		{"its kind is no field", func(l *slog.Logger) { l.Warn("port", "kind", "port", "err", errors.New("gone")) },
			[]Event{{Level: "warn", Kind: "port", Message: "port", Fields: Fields{{"err", "gone"}}}}},
		{"a logger's own attributes stand first", func(l *slog.Logger) { l.With("kind", "health", "a", 1).Error("x", "b", time.Second) },
			[]Event{{Level: "error", Kind: "health", Message: "x", Fields: Fields{{"a", "1"}, {"b", "1s"}}}}},
		{"groups", func(l *slog.Logger) { l.WithGroup("g").With("a", 1).Info("x", slog.Group("h", "b", 2)) },
			[]Event{{Level: "info", Kind: General, Message: "x", Fields: Fields{{"g.a", "1"}, {"g.h.b", "2"}}}}},
		{"debug is none", func(l *slog.Logger) { l.Debug("resolve") }, nil},
		{"between two levels", func(l *slog.Logger) { l.Log(context.Background(), slog.LevelWarn+1, "x") },
			[]Event{{Level: "warn", Kind: General, Message: "x", Fields: nil}}},
		{"what is too long is cut between characters", func(l *slog.Logger) { l.Info(long, "v", "\xff"+long) },
			[]Event{{Level: "info", Kind: General, Message: strings.Repeat("é", 126) + "…", Fields: Fields{{"v", "\uFFFD" + strings.Repeat("é", 125) + "…"}}}}},
		{"loggers of one do not write over each other", func(l *slog.Logger) {
			with := l.With("a", 1)
			with.With("b", 2).Info("x")
			with.With("c", 3).Info("y")
		}, []Event{
			{Level: "info", Kind: General, Message: "x", Fields: Fields{{"a", "1"}, {"b", "2"}}},
			{Level: "info", Kind: General, Message: "y", Fields: Fields{{"a", "1"}, {"c", "3"}}}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			log := NewLog(8)
			x.log(slog.New(log.Handler(slog.DiscardHandler)))
			got := log.Since(0, 0)
			for i := range got {
				if got[i].Seq != uint64(i+1) || time.Since(got[i].Time) > time.Minute {
					t.Errorf("number %d at %v", got[i].Seq, got[i].Time)
				}
				got[i].Seq, got[i].Time = 0, time.Time{}
				for _, f := range append(got[i].Fields, Field{Value: got[i].Message}) {
					if len(f.Value) > maxText || !utf8.ValidString(f.Value) {
						t.Errorf("%d bytes: %q", len(f.Value), f.Value)
					}
				}
			}
			if len(got) == 0 {
				got = nil
			}
			if !reflect.DeepEqual(got, x.want) {
				t.Errorf("%+v\nwant %+v", got, x.want)
			}
		})
	}
}

// TestHandlerBounds: a line with many attributes does not make the ring large.
func TestHandlerBounds(t *testing.T) {
	log := NewLog(1)
	var args []any
	for i := range 100 {
		args = append(args, fmt.Sprint("k", i), i)
	}
	slog.New(log.Handler(slog.DiscardHandler)).Info("x", args...)
	if n := len(log.Since(0, 0)[0].Fields); n != maxFields {
		t.Errorf("%d fields", n)
	}
}

// TestLogBeside: the log gets what its own level says, the ring what is info and above.
func TestLogBeside(t *testing.T) {
	for level, lines := range map[slog.Level]int{slog.LevelDebug: 4, slog.LevelInfo: 3, slog.LevelError: 1} {
		var text bytes.Buffer
		log := NewLog(8)
		l := slog.New(log.Handler(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level}))).With("kind", "k")
		l.Debug("a")
		l.Info("b")
		l.Warn("c")
		l.Error("d")
		if n := strings.Count(text.String(), "\n"); n != lines || !strings.Contains(text.String(), "msg=d kind=k") {
			t.Errorf("level %v: %d lines\n%s", level, n, text.String())
		}
		if n := len(log.Since(0, 0)); n != 3 {
			t.Errorf("level %v: %d events", level, n)
		}
	}
}

// TestSince compares the ring with a list that forgets nothing.
func TestSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 9).Draw(t, "size")
		log, all := NewLog(size), []Event{}
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			log.Add(Event{Message: fmt.Sprint(len(all))})
			all = append(all, Event{Seq: uint64(len(all) + 1), Message: fmt.Sprint(len(all))})
		}
		after, limit := rapid.Uint64Range(0, 40).Draw(t, "after"), rapid.IntRange(0, 12).Draw(t, "limit")
		want := all[max(0, len(all)-size):]
		for len(want) > 0 && want[0].Seq <= after {
			want = want[1:]
		}
		if limit > 0 {
			want = want[max(0, len(want)-limit):]
		}
		if got := log.Since(after, limit); fmt.Sprint(got) != fmt.Sprint(want) || log.Last() != uint64(len(all)) {
			t.Errorf("Since(%d, %d) = %v, want %v", after, limit, got, want)
		}
	})
}

// TestWait waits for an event that another goroutine adds, and for one that never comes.
func TestWait(t *testing.T) {
	log := NewLog(4)
	var ready sync.WaitGroup
	ready.Add(1)
	go func() {
		ready.Wait()
		log.Add(Event{Message: "a"})
	}()
	ready.Done()
	log.Wait(context.Background(), 0)
	if got := log.Since(0, 0); len(got) != 1 || got[0].Message != "a" {
		t.Errorf("%+v", got)
	}
	log.Wait(context.Background(), 0) // it is there already
	log.Wait(context.Background(), 7) // of a daemon before
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	log.Wait(ctx, 1)
	if ctx.Err() == nil {
		t.Error("an event that nobody added")
	}
}

func FuzzFields(f *testing.F) {
	f.Add("backend", "web1", "reason", `connect: "refused"`)
	f.Add("", "\xff", "</script>", "\u2028")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		in := Fields{{cut(k1), cut(v1)}, {cut(k2), cut(v2)}}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out Fields
		if err := json.Unmarshal(b, &out); err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%q -> %s -> %q: %v", in, b, out, err)
		}
		if strings.ContainsAny(string(b), "<>&") {
			t.Errorf("markup stays: %s", b)
		}
	})
}

func TestFieldsOfNoObject(t *testing.T) {
	for _, s := range []string{`[]`, `7`, `{"a":1}`, `{"a":{}}`} {
		var f Fields
		if err := json.Unmarshal([]byte(s), &f); err == nil {
			t.Errorf("%s is %v", s, f)
		}
	}
	if b, err := json.Marshal(Event{}); err != nil || !strings.Contains(string(b), `"fields":{}`) {
		t.Errorf("%s %v", b, err)
	}
	if (Fields{{"a", "1"}}).Get("a") != "1" || (Fields{}).Get("a") != "" {
		t.Error("Get")
	}
}
