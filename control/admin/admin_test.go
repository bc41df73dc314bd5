package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const secret = "0123456789abcdef"

func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadToken(t *testing.T) {
	for _, x := range []struct {
		name, text string
		ok         bool
	}{
		{"a line", secret + "\n", true},
		{"without its end", secret, true},
		{"of another system", secret + "\r\n", true},
		{"the longest", strings.Repeat("x", 512) + "\n", true},
		{"nothing", "", false},
		{"an empty line", "\n", false},
		{"too short", "0123456789abcde\n", false},
		{"too long", strings.Repeat("x", 513) + "\n", false},
		{"two lines", secret + "\n" + secret + "\n", false},
		{"a space behind", secret + " \n", false},
		{"not ASCII", secret + "é\n", false},
		{"huge", strings.Repeat("x", 1<<20), false},
	} {
		t.Run(x.name, func(t *testing.T) {
			token, open, err := LoadToken(file(t, x.text, 0o640))
			if (err == nil) != x.ok || x.ok && token == nil || open || err != nil && !errors.Is(err, ErrToken) {
				t.Errorf("%v %t %v", token, open, err)
			}
		})
	}
	if _, open, err := LoadToken(file(t, secret, 0o644)); !open || err != nil {
		t.Errorf("readable by all: %t %v", open, err)
	}
	if _, _, err := LoadToken(t.TempDir()); err == nil {
		t.Error("a directory is a token")
	}
	if _, _, err := LoadToken(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// bed is a front that listens on a port of loopback, before a handler that says what it was asked.
type bed struct {
	*Front
	t   *testing.T
	log bytes.Buffer
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t}
	b.Front = NewFront(slog.New(slog.NewTextHandler(&b.log, nil)), func(w http.ResponseWriter, status int, err error) { http.Error(w, err.Error(), status) })
	b.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		fmt.Fprint(w, r.Method, " ", r.URL.Path)
	}))
	t.Cleanup(b.Close)
	return b
}

// set puts s in force, on a free port of loopback unless the front has one already.
func (b *bed) set(s Settings) {
	b.t.Helper()
	if s.Address = b.address; !s.Address.IsValid() {
		s.Address = netip.MustParseAddrPort("127.0.0.1:0")
	}
	c, err := b.Prepare(s)
	if err != nil {
		b.t.Fatal(err)
	}
	c.Commit()
}

func (b *bed) ask(method, path, authorization string, body io.Reader) (status int, text string, header http.Header) {
	b.t.Helper()
	r, err := http.NewRequest(method, "http://"+b.Addr().String()+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), resp.Header
}

// TestWhoMay asks for everything with and without a token, where there is one and where there is none.
func TestWhoMay(t *testing.T) {
	b := newBed(t)
	token := file(t, secret+"\n", 0o600)
	for _, x := range []struct {
		name                        string
		settings                    Settings
		method, path, authorization string
		status                      int
	}{
		{"a view", Settings{}, "GET", "/stats", "", 200},
		{"its head", Settings{}, "HEAD", "/stats", "", 200},
		{"a change where nobody may", Settings{}, "POST", "/reload", "", 403},
		{"with a token that nobody knows", Settings{}, "POST", "/reload", "Bearer " + secret, 403},
		{"a view where there is a token", Settings{TokenFile: token}, "GET", "/stats", "", 200},
		{"a view with a wrong one", Settings{TokenFile: token}, "GET", "/stats", "Bearer nonsense", 200},
		{"a change without it", Settings{TokenFile: token}, "POST", "/reload", "", 401},
		{"another method", Settings{TokenFile: token}, "DELETE", "/stats", "", 401},
		{"a wrong one", Settings{TokenFile: token}, "POST", "/reload", "Bearer " + secret + "0", 401},
		{"half of it", Settings{TokenFile: token}, "POST", "/reload", "Bearer " + secret[:8], 401},
		{"an empty one", Settings{TokenFile: token}, "POST", "/reload", "Bearer ", 401},
		{"another scheme", Settings{TokenFile: token}, "POST", "/reload", "Basic " + secret, 401},
		{"no scheme", Settings{TokenFile: token}, "POST", "/reload", secret, 401},
		{"with it", Settings{TokenFile: token}, "POST", "/reload", "Bearer " + secret, 200},
		{"schemes know no case", Settings{TokenFile: token}, "POST", "/reload", "bearer  " + secret, 200},
		{"profiles are off", Settings{TokenFile: token}, "GET", "/debug/pprof/", "Bearer " + secret, 404},
		{"profiles", Settings{Pprof: true}, "GET", "/debug/pprof/", "", 200},
		{"one of them", Settings{Pprof: true}, "GET", "/debug/pprof/goroutine?debug=1", "", 200},
		{"profiles without the token", Settings{Pprof: true, TokenFile: token}, "GET", "/debug/pprof/", "", 401},
		{"profiles with it", Settings{Pprof: true, TokenFile: token}, "GET", "/debug/pprof/cmdline", "Bearer " + secret, 200},
		{"a way round", Settings{TokenFile: token}, "GET", "/x/../debug/pprof/", "", 404},
	} {
		t.Run(x.name, func(t *testing.T) {
			b.t = t
			b.set(x.settings)
			status, text, header := b.ask(x.method, x.path, x.authorization, nil)
			if status != x.status {
				t.Errorf("%d, want %d: %s", status, x.status, text)
			}
			if x.status == 200 && x.method != "HEAD" && !strings.HasPrefix(x.path, profiles) && text != x.method+" "+x.path {
				t.Errorf("the answer is %q", text)
			}
			if (x.status == 401) != (header.Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate: %q", header.Get("WWW-Authenticate"))
			}
		})
	}
}

// TestChanges: a token that changes in its file, an address that moves, and changes that come to nothing.
func TestChanges(t *testing.T) {
	b := newBed(t)
	if b.Addr() != nil {
		t.Errorf("it listens on %v", b.Addr())
	}
	path := file(t, secret+"\n", 0o644)
	b.set(Settings{TokenFile: path})
	if !strings.Contains(b.log.String(), "everybody on this host can read the token") {
		t.Errorf("nobody warns: %s", b.log.String())
	}
	if err := os.WriteFile(path, []byte("another-token-now\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := b.ask("POST", "/", "Bearer "+secret, nil); status != 200 {
		t.Errorf("before the reload: %d", status)
	}
	was := b.Addr().String()
	b.set(Settings{TokenFile: path})
	if status, _, _ := b.ask("POST", "/", "Bearer "+secret, nil); status != 401 {
		t.Errorf("the token of before: %d", status)
	}
	if status, _, _ := b.ask("POST", "/", "Bearer another-token-now", nil); status != 200 || b.Addr().String() != was {
		t.Errorf("the new one: %d, at %v", status, b.Addr())
	}

	// What cannot be is refused, and all stays.
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path, []byte("short\n"), 0o600))
	if _, err := b.Prepare(Settings{Address: b.address, TokenFile: path}); !errors.Is(err, ErrToken) || !strings.HasPrefix(err.Error(), "admin.token_file: ") {
		t.Errorf("a token too short: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer taken.Close()
	if _, err := b.Prepare(Settings{Address: netip.MustParseAddrPort(taken.Addr().String())}); err == nil || !strings.HasPrefix(err.Error(), "admin.http: listen") {
		t.Errorf("an address of somebody else: %v", err)
	}
	free, err := b.Prepare(Settings{Address: netip.MustParseAddrPort("127.0.0.3:0")})
	must(err)
	gone := free.listener.Addr().String()
	free.Abort()
	if c, err := net.Dial("tcp", gone); err == nil {
		c.Close()
		t.Errorf("%s answers after Abort", gone)
	}
	if status, _, _ := b.ask("POST", "/", "Bearer another-token-now", nil); status != 200 {
		t.Errorf("after three refusals: %d", status)
	}

	// An address that moves, then goes.
	next, err := b.Prepare(Settings{Address: netip.MustParseAddrPort("127.0.0.2:0")})
	must(err)
	next.Commit()
	if status, _, _ := b.ask("GET", "/x", "", nil); status != 200 || b.Addr().String() == was {
		t.Errorf("%d at %v", status, b.Addr())
	}
	if c, err := net.Dial("tcp", was); err == nil {
		c.Close()
		t.Errorf("%s answers still", was)
	}
	was = b.Addr().String()
	off, err := b.Prepare(Settings{})
	must(err)
	off.Commit()
	if c, err := net.Dial("tcp", was); err == nil || b.Addr() != nil {
		t.Errorf("it answers when switched off: %v %v", c, b.Addr())
	}
}

// TestAskingForAChange: who asks over the address that goes gets his answer.
func TestAskingForAChange(t *testing.T) {
	b := newBed(t)
	asked, changed := make(chan struct{}), make(chan struct{})
	f := NewFront(slog.New(slog.DiscardHandler), b.refuse)
	f.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-changed
		fmt.Fprint(w, "done")
	}))
	defer f.Close()
	commit := func(s Settings) {
		c, err := f.Prepare(s)
		if err != nil {
			t.Error(err)
			return
		}
		c.Commit()
	}
	commit(Settings{Address: netip.MustParseAddrPort("127.0.0.1:0")})
	url := "http://" + f.Addr().String()
	go func() {
		<-asked
		commit(Settings{})
		close(changed)
	}()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); string(text) != "done" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}

// TestHugeRequests are cut off.
func TestHugeRequests(t *testing.T) {
	b := newBed(t)
	b.set(Settings{TokenFile: file(t, secret, 0o600)})
	if status, text, _ := b.ask("POST", "/", "Bearer "+secret, strings.NewReader(strings.Repeat("x", bodyBytes))); status != 200 {
		t.Errorf("as much as may be: %d %s", status, text)
	}
	if status, text, _ := b.ask("POST", "/", "Bearer "+secret, strings.NewReader(strings.Repeat("x", bodyBytes+1))); status != 413 {
		t.Errorf("a byte more: %d %s", status, text)
	}
	if status, text, _ := b.ask("GET", "/", "Bearer "+strings.Repeat("x", 2*headerBytes), nil); status != 431 {
		t.Errorf("a long header: %d %s", status, text)
	}
}

// TestServerLimits: a server without one of these would wait for ever.
func TestServerLimits(t *testing.T) {
	s := NewServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= time.Minute || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("%+v", s)
	}
}

// served is a server for h with short limits, at an address.
func served(t *testing.T, h http.Handler, limits func(*http.Server)) (address string) {
	t.Helper()
	s := NewServer(h, slog.New(slog.DiscardHandler))
	limits(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// TestSlowRequests: who does not come to the end of his header, or of his body, is cut off.
func TestSlowRequests(t *testing.T) {
	t.Parallel() // it mostly waits
	read := make(chan error, 16)
	address := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	}), func(s *http.Server) { s.ReadHeaderTimeout, s.ReadTimeout = time.Second, 2*time.Second })
	begin := func(request string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, request)
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	header := begin("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	for range 5 { // on a machine that is very slow, the header of one may come too late
		body := begin("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
		if _, err := io.ReadAll(body); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a body without end is waited for")
		}
		if len(read) > 0 {
			break
		}
	}
	select {
	case err := <-read:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a body without end: %v", err)
		}
	default:
		t.Error("nobody read a body")
	}
	if _, err := io.ReadAll(header); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a header without end is waited for")
	}
}

// TestSlowAnswers: the deadline for reading is over when the answer is not yet there, and does not end it: net/http takes it away once the request is there.
func TestSlowAnswers(t *testing.T) {
	t.Parallel() // it mostly waits
	const limit = 500 * time.Millisecond
	address := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			http.Error(w, "given up", http.StatusInternalServerError)
		case <-time.After(2 * limit):
			fmt.Fprint(w, "there")
		}
	}), func(s *http.Server) { s.ReadTimeout = limit })
	var last string
	for range 10 { // on a machine that is very slow, a request may come too late; each would be given up if the deadline held
		resp, err := http.Get("http://" + address)
		if err != nil {
			last = err.Error()
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = string(text); last == "there" {
			return
		}
	}
	t.Errorf("the last answer is %q", last)
}

// TestConnections: beyond the limit they wait, and come when another goes.
func TestConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var clients [3]net.Conn
	for i := range clients {
		if clients[i], err = net.Dial("tcp", l.Addr().String()); err != nil { // the kernel takes it, whether or not we do
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	a, b := <-accepted, <-accepted
	defer b.Close()
	select {
	case <-accepted:
		t.Fatal("a third was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	a.Close()
	a.Close() // no second slot for it
	c := <-accepted
	defer c.Close()
	if n := len(l.slots); n != 2 {
		t.Errorf("%d slots are taken", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("Accept waits for a slot of a listener that is closed")
	}
}

// TestProbesNeverWait has every place taken by requests that take long, and all connections kept that may be: whoever asks whether we live is
// answered, and one more of the others is refused at once.
func TestProbesNeverWait(t *testing.T) {
	b := &bed{t: t}
	b.Front = NewFront(slog.New(slog.NewTextHandler(&b.log, nil)), func(w http.ResponseWriter, status int, err error) { http.Error(w, err.Error(), status) })
	t.Cleanup(b.Close)
	release, slow := make(chan struct{}), make(chan struct{}, maxAsking)
	b.Handle(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/conns" {
			slow <- struct{}{}
			<-release
		}
	}))
	b.set(Settings{})
	var idle []net.Conn
	for range maxIdle + 8 {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !resp.Close {
			idle = append(idle, c)
		}
	}
	if n := len(idle); n != maxIdle && n != maxIdle-1 { // Accept may have taken the next one's place already
		t.Errorf("%d connections are kept open without a request, want %d", n, maxIdle)
	}
	var under sync.WaitGroup
	for range maxAsking {
		under.Go(func() {
			if resp, err := http.Get("http://" + b.Addr().String() + "/conns"); err == nil {
				resp.Body.Close()
			}
		})
	}
	for range maxAsking {
		<-slow
	}
	if status, text, header := b.ask("GET", "/config/diff", "", nil); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("one more: %d %q", status, text)
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if status, text, _ := b.ask("GET", path, "", nil); status != http.StatusOK {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
	close(release)
	under.Wait()
	if status, text, _ := b.ask("GET", "/config/diff", "", nil); status != http.StatusOK {
		t.Errorf("once they have ended: %d %q", status, text)
	}
}

// TestNames asks by names that are ours and that are not.
func TestNames(t *testing.T) {
	own, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	b := newBed(t)
	b.set(Settings{TokenFile: file(t, secret, 0o600), Hosts: []string{"lb1.example"}})
	for _, x := range []struct {
		host, path, authorization string
		status                    int
	}{
		{"127.0.0.1:9180", "/", "", 200},
		{"192.0.2.1", "/", "", 200},
		{"[2001:db8::1]:9180", "/", "", 200},
		{"[2001:db8::1]", "/", "", 200},
		{"localhost:9180", "/", "", 200},
		{"LOCALHOST", "/", "", 200},
		{own + ":9180", "/stats", "", 200},
		{"lb1.example:9180", "/", "", 200},
		{"LB1.Example.", "/", "", 200},
		{"attacker.example", "/", "", 421},
		{"attacker.example:9180", "/stats", "", 421},
		{"lb1.example.attacker.example", "/", "", 421},
		{"127.0.0.1.attacker.example", "/", "", 421},
		{"attacker.example", "/metrics", "", 200},
		{"attacker.example", "/livez", "", 200},
		{"attacker.example", "/readyz", "", 200},
		{"attacker.example", "/stats", "Bearer " + secret, 200},
		{"attacker.example", "/stats", "Bearer nonsense", 421},
	} {
		r, err := http.NewRequest("GET", "http://"+b.Addr().String()+x.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Host = x.host; x.authorization != "" {
			r.Header.Set("Authorization", x.authorization)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.status || x.status == 421 && !strings.Contains(string(text), "admin.hosts") {
			t.Errorf("%s%s: %d %s", x.host, x.path, resp.StatusCode, text)
		}
	}
}

// TestInherited: the listener of another process answers if the address is still that one, and is closed if not.
func TestInherited(t *testing.T) {
	for _, kept := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		was, now := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:1")
		if !kept {
			now = netip.MustParseAddrPort("127.0.0.1:0")
		}
		b := newBed(t)
		b.Inherit(l, was)
		c, err := b.Prepare(Settings{Address: now})
		if err != nil {
			t.Fatal(err)
		}
		if x, err := net.Dial("tcp", l.Addr().String()); err != nil {
			t.Errorf("before the change it is closed: %v", err)
		} else {
			x.Close()
		}
		c.Commit()
		if (b.Addr().String() == l.Addr().String()) != kept {
			t.Errorf("it answers on %v, inherited was %v", b.Addr(), l.Addr())
		}
		x, err := net.Dial("tcp", l.Addr().String())
		if (err == nil) != kept {
			t.Errorf("kept %v: %v", kept, err)
		}
		if err == nil {
			x.Close()
		}
	}
}
