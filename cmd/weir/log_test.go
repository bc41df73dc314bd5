package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// TestLogLines: one line an event, in either format, for the journal with its priority and without time.
func TestLogLines(t *testing.T) {
	const stamp = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S*`
	for _, x := range []struct {
		format  string
		journal bool
		want    []string // patterns of lines
	}{
		{"text", false, []string{`time=` + stamp + ` level=INFO msg=running generation=1`, `time=` + stamp + ` level=WARN msg=backend_state reason="a\\nb" service=web`,
			`time=` + stamp + ` level=ERROR msg=reload g.k=v`}},
		{"json", false, []string{`{"time":"` + stamp + `","level":"INFO","msg":"running","generation":1}`,
			`{"time":"` + stamp + `","level":"WARN","msg":"backend_state","reason":"a\\nb","service":"web"}`, `{"time":"` + stamp + `","level":"ERROR","msg":"reload","g":{"k":"v"}}`}},
		{"text", true, []string{`<6>level=INFO msg=running generation=1`, `<4>level=WARN msg=backend_state reason="a\\nb" service=web`, `<3>level=ERROR msg=reload g.k=v`}},
		{"json", true, []string{`<6>{"level":"INFO","msg":"running","generation":1}`, `<4>{"level":"WARN","msg":"backend_state","reason":"a\\nb","service":"web"}`,
			`<3>{"level":"ERROR","msg":"reload","g":{"k":"v"}}`}},
	} {
		t.Run(fmt.Sprint(x.format, " ", x.journal), func(t *testing.T) {
			var b bytes.Buffer
			l := slog.New(logHandler(&b, slog.LevelInfo, x.format, x.journal))
			l.Debug("not shown")
			l.Info("running", "generation", 1)
			l.With("reason", "a\nb").Warn("backend_state", "service", "web")
			l.WithGroup("g").Error("reload", "k", "v")
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if len(lines) != len(x.want) {
				t.Fatalf("%d lines:\n%s", len(lines), &b)
			}
			for i, want := range x.want {
				want = strings.NewReplacer("{", `\{`, "}", `\}`).Replace(strings.ReplaceAll(want, stamp, "STAMP"))
				if !regexp.MustCompile("^" + strings.ReplaceAll(want, "STAMP", stamp) + "$").MatchString(lines[i]) {
					t.Errorf("%s\nmust be %s", lines[i], want)
				}
			}
		})
	}
	if got := [4]int{priority(slog.LevelDebug), priority(slog.LevelInfo), priority(slog.LevelWarn), priority(slog.LevelError + 4)}; got != [4]int{7, 6, 4, 3} {
		t.Errorf("priorities %v", got)
	}
}

func TestToJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{"": false, "8:1": false, fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false} {
		if toJournal(f, stream) != want {
			t.Errorf("JOURNAL_STREAM=%s: want %v", stream, want)
		}
	}
}

func TestLogFlags(t *testing.T) {
	for _, x := range []struct {
		args  []string
		debug bool
		err   string
	}{
		{args: nil},
		{args: []string{"--log-level", "debug"}, debug: true},
		{args: []string{"--log", "debug"}, debug: true},
		{args: []string{"--log", "debug", "--log-level", "warn"}},
		{args: []string{"--log-format", "json"}},
		{args: []string{"--log-level", "loud"}, err: "--log-level loud: must be debug, info, warn or error"},
		{args: []string{"--log-format", "xml"}, err: "--log-format xml: must be text or json"},
	} {
		c := &cobra.Command{}
		logger := logFlags(c)
		if err := c.ParseFlags(x.args); err != nil {
			t.Fatal(err)
		}
		l, err := logger()
		switch {
		case x.err != "":
			if err == nil || !strings.Contains(err.Error(), x.err) || exitCode(err) != exitUsage {
				t.Errorf("%q: %v", x.args, err)
			}
		case err != nil:
			t.Errorf("%q: %v", x.args, err)
		case l.Enabled(t.Context(), slog.LevelDebug) != x.debug:
			t.Errorf("%q: debug is shown: %v", x.args, !x.debug)
		}
	}
}
