package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// logFlags are the flags of a command that logs; logger, called when they have been read, is what they ask for.
func logFlags(c *cobra.Command) (logger func() (*slog.Logger, error)) {
	var level slog.Level
	var text, old string
	c.Flags().StringVar(&text, "log-level", "info", "least severe messages shown: debug, info, warn or error")
	c.Flags().StringVar(&old, "log", "info", "as --log-level")
	_ = c.Flags().MarkHidden("log") // its name before there was a format
	format := c.Flags().String("log-format", "text", "text (key=value) or json; one line an event, either way")
	return func() (*slog.Logger, error) {
		if c.Flags().Changed("log") && !c.Flags().Changed("log-level") {
			text = old
		}
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, usage(fmt.Errorf("--log-level %s: must be debug, info, warn or error", text))
		}
		if *format != "text" && *format != "json" {
			return nil, usage(fmt.Errorf("--log-format %s: must be text or json", *format))
		}
		return slog.New(logHandler(os.Stderr, level, *format, toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")))), nil
	}
}

// toJournal reports whether f is the journal's stream, which systemd names by device and inode in JOURNAL_STREAM (systemd.exec(5)): a program
// whose output somebody has redirected still has the variable.
func toJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// logHandler writes one line an event. For the journal each begins with its priority (sd-daemon(3)), so that `journalctl -p warning` works, and has no
// time, as the journal notes that itself.
func logHandler(w io.Writer, level slog.Level, format string, journal bool) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	j := &journalHandler{to: w, line: &bytes.Buffer{}, mu: &sync.Mutex{}}
	if journal {
		w = j.line
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	j.inner = slog.NewTextHandler(w, o)
	if format == "json" {
		j.inner = slog.NewJSONHandler(w, o)
	}
	if !journal {
		return j.inner
	}
	return j
}

// journalHandler puts a priority before what inner makes of an event.
type journalHandler struct {
	inner slog.Handler
	mu    *sync.Mutex
	line  *bytes.Buffer // what inner writes to; guarded by mu
	to    io.Writer
}

func (j *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return j.inner.Enabled(ctx, l)
}

func (j *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.line.Reset()
	fmt.Fprintf(j.line, "<%d>", priority(r.Level))
	if err := j.inner.Handle(ctx, r); err != nil {
		return err
	}
	_, err := j.to.Write(j.line.Bytes()) // in one piece: other goroutines, and programs, write there, too
	return err
}

func (j *journalHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &journalHandler{j.inner.WithAttrs(a), j.mu, j.line, j.to}
}

func (j *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{j.inner.WithGroup(name), j.mu, j.line, j.to}
}

// priority is a level as syslog(3) counts.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}
