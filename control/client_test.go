package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClientGivesUp has daemons that take the connection and then fall silent, before the answer and within it.
func TestClientGivesUp(t *testing.T) {
	const little, much = 100 * time.Millisecond, 2 * time.Second // a busy machine takes its time, too
	for _, x := range []struct {
		name     string
		patience time.Duration
		handle   http.HandlerFunc
		get      string
		want     string // of the error; empty: none
	}{
		{"says nothing", little, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "/status", fmt.Sprintf("pid %d has the socket and has said nothing for 100ms", os.Getpid())},
		{"stops within its answer", little, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"pid":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "/status", "has said nothing for 100ms"},
		{"is slow, but speaks", much, func(w http.ResponseWriter, _ *http.Request) {
			for _, piece := range []string{`{"pid"`, `: 4`, `2`, `}`, "\n", "\n", "\n", "\n"} {
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(much / 7)
			}
		}, "/status", ""},
		{"was asked to take its time", little, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * little)
			writeJSON(w, http.StatusOK, Status{PID: 42})
		}, "/rates?interval=1m", ""},
		{"was asked to wait for something to happen", little, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * little)
			writeJSON(w, http.StatusOK, Status{PID: 42})
		}, "/events?after=4&wait=30s", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			client := quietDaemon(t, x.handle)
			client.Patience = x.patience
			var s Status
			began := time.Now()
			err := client.Get(x.get, &s)
			switch took := time.Since(began); {
			case x.want == "" && (err != nil || s.PID != 42):
				t.Errorf("got %+v, %v", s, err)
			case x.want != "" && (!errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "kill -QUIT")):
				t.Errorf("want %v with %q and a cure, got %v", ErrNoDaemon, x.want, err)
			case x.want != "" && took < x.patience:
				t.Errorf("gave up after %v, before %v", took, x.patience)
			}
		})
	}
}

// TestClientWaitsForStreams: a capture may have nothing to show for as long as it likes.
func TestClientWaitsForStreams(t *testing.T) {
	client := quietDaemon(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(1500 * time.Millisecond)
		_, _ = io.WriteString(w, "a packet")
	})
	client.Patience = time.Second
	resp, err := client.Stream("/capture", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "a packet" {
		t.Errorf("got %q, %v", b, err)
	}
}

// quietDaemon answers by handle on a socket of its own.
func quietDaemon(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "weir.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handle}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return NewClient(l.Addr().String())
}

// TestClientIsNotAdmitted has a socket that one may not use: the error says so still, and who may.
func TestClientIsNotAdmitted(t *testing.T) {
	err := notAdmitted(&net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: "/run/weir.sock", Net: "unix"}, Err: os.NewSyscallError("connect", unix.EACCES)})
	if !errors.Is(err, os.ErrPermission) || !strings.HasPrefix(err.Error(), "dial unix /run/weir.sock: connect: permission denied (") || !strings.Contains(err.Error(), "group weir") {
		t.Error(err)
	}
}
