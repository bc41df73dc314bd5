package events

import (
	"context"
	"log/slog"
	"strings"
	"unicode/utf8"
)

// Bounds of an event, so that the ring's memory has one, too: an event is 4 KiB or so at most.
const (
	maxFields = 16
	maxText   = 256 // bytes of a message or value
)

// Handler is a handler that gives each record to next, if next wants it, and to the log those of level info and above.
func (l *Log) Handler(next slog.Handler) slog.Handler { return &handler{log: l, next: next} }

type handler struct {
	log    *Log
	next   slog.Handler
	kind   string // from WithAttrs; empty: none
	fields Fields // from WithAttrs
	group  string // prefix of keys: "a.b."
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		e := Event{Time: r.Time.UTC(), Level: levelName(r.Level), Kind: h.kind, Message: cut(r.Message), Fields: h.fields[:len(h.fields):len(h.fields)]}
		r.Attrs(func(a slog.Attr) bool {
			e.Kind, e.Fields = add(e.Kind, e.Fields, h.group, a)
			return true
		})
		if e.Kind == "" {
			e.Kind = General
		}
		h.log.Add(e)
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	to := *h
	to.next = h.next.WithAttrs(attrs)
	to.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, a := range attrs {
		to.kind, to.fields = add(to.kind, to.fields, h.group, a)
	}
	return &to
}

func (h *handler) WithGroup(name string) slog.Handler {
	to := *h
	to.next = h.next.WithGroup(name)
	if name != "" {
		to.group += name + "."
	}
	return &to
}

// add appends a to fields, or makes it the kind. Attributes beyond maxFields are left out.
func add(kind string, fields Fields, group string, a slog.Attr) (string, Fields) {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, x := range v.Group() {
			kind, fields = add(kind, fields, group, x)
		}
	case a.Key == KindKey && group == "":
		kind = cut(v.String())
	case a.Key != "" && len(fields) < maxFields:
		fields = append(fields, Field{cut(group + a.Key), cut(v.String())})
	}
	return kind, fields
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	}
	return "info"
}

// cut makes s valid UTF-8 of at most maxText bytes.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	n := maxText - len("…")
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
