package handover

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is both ends of a connection.
func pair(t testing.TB) (a, b *Conn, raw *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close(); other.Close() })
	return New(raw), New(other), raw
}

const patience = 10 * time.Second

type body struct {
	Text string
	N    uint64
}

// TestFilesComeWithTheirMessage: more files than go with one byte, and messages without any, in order; each descriptor is the file that was sent.
func TestFilesComeWithTheirMessage(t *testing.T) {
	a, b, _ := pair(t)
	var files []int
	for i := range 150 {
		fd, err := unix.MemfdCreate("f", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		files = append(files, fd)
	}
	want := body{strings.Repeat("x", 300_000), 1<<64 - 1}
	go func() {
		for _, n := range []int{0, 1, 150, 64} {
			if err := a.Send(patience, "first", want, files[:n]...); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, n := range []int{0, 1, 150, 64} {
		var got body
		came, err := b.Receive(patience, "first", &got)
		if err != nil || len(came) != n || got != want {
			t.Fatalf("%d files and %d bytes come, %v; want %d and %d", len(came), len(got.Text), err, n, len(want.Text))
		}
		for i, fd := range came {
			text := make([]byte, 8)
			n, err := unix.Pread(fd, text, 0)
			if err != nil || string(text[:n]) != fmt.Sprint(i) {
				t.Errorf("file %d holds %q (%v)", i, text[:n], err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("file %d would be given to programs that are executed (%v)", i, err)
			}
		}
		Close(came)
	}
}

// TestWhatBecomesOfTheOtherEnd: giving up, dying and silence are three things.
func TestWhatBecomesOfTheOtherEnd(t *testing.T) {
	for _, x := range []struct {
		name string
		act  func(a *Conn, raw *net.UnixConn)
		want error
		text string
	}{
		{"it gives up", func(a *Conn, _ *net.UnixConn) { a.Abort(errors.New("layouts differ")); a.Close() }, ErrAborted, "layouts differ"},
		{"it dies", func(a *Conn, _ *net.UnixConn) { a.Close() }, ErrGone, "last"},
		{"it dies within a message", func(_ *Conn, raw *net.UnixConn) { _, _ = raw.Write([]byte("weir\x00\x00")); raw.Close() }, ErrGone, "last"},
		{"it says nothing", func(*Conn, *net.UnixConn) {}, ErrSilent, "last"},
	} {
		t.Run(x.name, func(t *testing.T) {
			a, b, raw := pair(t)
			x.act(a, raw)
			_, err := b.Receive(100*time.Millisecond, "last", &body{})
			if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) {
				t.Errorf("%v, want %v with %q", err, x.want, x.text)
			}
		})
	}
	a, b, _ := pair(t)
	b.Close()
	for range 2 { // the first may still find room
		if err := a.Send(patience, "first", body{}); err != nil {
			if !errors.Is(err, ErrGone) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("two messages to nobody are sent")
}

// TestWhatIsNoMessage: whatever comes, nothing of it is believed, and no descriptor is left.
func TestWhatIsNoMessage(t *testing.T) {
	text := `{"kind":"first","body":{"N":1}}`
	head := func(mark string, length, files int) string {
		return fmt.Sprintf("%s\x00\x00\x00%c\x00\x00\x00%c", mark, length, files)
	}
	for name, bytes := range map[string]string{
		"another mark":       head("http", len(text), 0) + text,
		"longer than memory": "weir\xff\xff\xff\xff\x00\x00\x00\x00",
		"files without end":  "weir\x00\x00\x00\x02\x7f\xff\xff\xff{}",
		"no JSON":            head("weir", 3, 0) + "{,}",
		"another kind":       head("weir", 15, 0) + `{"kind":"other"`[:15],
		"another body":       head("weir", 27, 0) + `{"kind":"first","body":"x"}`,
		"files that are not": head("weir", len(text), 2) + text + "\x02",
	} {
		_, b, raw := pair(t)
		before := descriptors(t)
		if _, err := raw.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		if files, err := b.Receive(patience, "first", &body{}); err == nil {
			t.Errorf("%s: is taken for a message with %d files", name, len(files))
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors are open, before %d", name, after, before)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

// TestDial: the conversation begins with an HTTP request to a server that has others, and refusals are told.
func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, func(w http.ResponseWriter, r *http.Request) {
		version, ok := Version(r)
		if !ok || version != 7 {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"version 7 is spoken here"}`)
			return
		}
		c, err := Accept(w, version)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if p, err := c.Peer(); err != nil || int(p.Pid) != os.Getpid() {
			t.Errorf("peer is %+v, %v", p, err)
		}
		if err := c.Send(patience, "first", body{N: 1}, int(os.Stdin.Fd())); err != nil {
			t.Error(err)
		}
		if _, err := c.Receive(patience, "second", &body{}); err != nil {
			t.Error(err)
		}
	})
	s := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	c, err := Dial(path, 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Receive(patience, "first", &body{})
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	Close(files)
	if err := c.Send(patience, "second", body{}); err != nil {
		t.Error(err)
	}
	c.Close()
	if _, err := Dial(path, 8, patience); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "version 7 is spoken here") {
		t.Errorf("another version: %v", err)
	}
	s.Close()
	if _, err := Dial(path, 7, patience); err == nil {
		t.Error("nobody is there, and answers")
	}
	// One that knows of no takeover.
	old, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	go func() { _ = http.Serve(old, http.NewServeMux()) }()
	if _, err := Dial(path, 7, patience); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("an older weir: %v", err)
	}
}

// FuzzReceive: no bytes make it panic, wait for ever, or keep a descriptor.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("weir\x00\x00\x00\x1b\x00\x00\x00\x00" + `{"kind":"first","body":{"N":1}}`))
	f.Add([]byte("weir\x00\x00\x00\x1f\x00\x00\x00\x01" + `{"kind":"first","body":{"N":1}}` + "\x01"))
	f.Add([]byte("weir\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte(`weir` + "\x00\x00\x00\x20\x00\x00\x00\x00" + `{"kind":"abort","body":"because"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, c, raw := pair(t)
		go func() {
			_, _ = raw.Write(b)
			raw.Close()
		}()
		var got body
		files, err := c.Receive(patience, "first", &got)
		if len(files) > 0 {
			t.Errorf("%d files came from nowhere", len(files))
		}
		if errors.Is(err, ErrSilent) {
			t.Errorf("waits for more than there is: %v", err)
		}
	})
}
