package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask does a check of a server, whose kind and details are c's, and returns what is wrong with it, empty if nothing. limit is long enough for the
// slowest machine where an answer is awaited, and as short as may be where none will come.
func ask(t *testing.T, c Check, limit time.Duration) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	began := time.Now()
	err := Ask(ctx, &c)
	if took := time.Since(began); took > limit+20*time.Second {
		t.Errorf("it took %v", took)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

const patient = 30 * time.Second

// closed is an address of this host where nobody listens.
func closed(t *testing.T, network string) netip.AddrPort {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return addrOf(c.LocalAddr())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return addrOf(l.Addr())
}

func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// talker is a TCP server that does this with each connection.
func talker(t *testing.T, address string, talk func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no listener at %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				talk(c)
			}()
		}
	}()
	return addrOf(l.Addr())
}

func TestTCP(t *testing.T) {
	hangs := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	greets := func(c net.Conn) {
		fmt.Fprint(c, "220 mail")
		time.Sleep(10 * time.Millisecond)
		fmt.Fprint(c, ".example ESMTP\r\n")
		hangs(c)
	}
	pong := func(c net.Conn) {
		if s, _ := bufio.NewReader(c).ReadString('\n'); s == "PING\r\n" {
			fmt.Fprint(c, "+PONG\r\n")
		}
	}
	for _, x := range []struct {
		name  string
		at    netip.AddrPort
		check Check
		limit time.Duration
		want  string
	}{
		{"a connection opens", talker(t, "127.0.0.1:0", hangs), Check{}, patient, ""},
		{"over IPv6", talker(t, "[::1]:0", hangs), Check{}, patient, ""},
		{"nobody listens", closed(t, "tcp"), Check{}, patient, "connect: connection refused"},
		{"a greeting comes in pieces", talker(t, "127.0.0.1:0", greets), Check{Expect: "mail.example"}, patient, ""},
		{"a greeting matches", talker(t, "127.0.0.1:0", greets), Check{ExpectRegex: `(?m)^220 \S+ ESMTP`}, patient, ""},
		{"another greeting", talker(t, "127.0.0.1:0", greets), Check{Expect: "421"}, 50 * time.Millisecond, "no answer in time"},
		{"question and answer", talker(t, "127.0.0.1:0", pong), Check{Send: "PING\r\n", Expect: "PONG"}, patient, ""},
		{"another question", talker(t, "127.0.0.1:0", pong), Check{Send: "QUIT\r\n", Expect: "PONG"}, patient, `the answer does not contain "PONG"`},
		{"an endless answer", talker(t, "127.0.0.1:0", func(c net.Conn) {
			for _, err := fmt.Fprint(c, strings.Repeat("x", 4096)); err == nil; _, err = fmt.Fprint(c, strings.Repeat("x", 4096)) {
			}
		}), Check{Expect: "y"}, patient, `the answer does not contain "y"`},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := x.check
			c.Kind, c.Target = TCP, x.at
			if got := ask(t, c, x.limit); got != x.want {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
}

func TestHTTP(t *testing.T) {
	var agent, host string
	mux := http.NewServeMux()
	mux.HandleFunc("/up", func(w http.ResponseWriter, r *http.Request) {
		agent, host = r.UserAgent(), r.Host
		fmt.Fprintf(w, "all %s is well with %s\n", r.URL.RawQuery, r.Method)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/down", http.StatusFound) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "sorry", http.StatusServiceUnavailable) })
	mux.HandleFunc("/stuck", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/half", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half of it")
	})
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of what we do to it
	secure.StartTLS()
	defer secure.Close()
	garbage := talker(t, "127.0.0.1:0", func(c net.Conn) { fmt.Fprint(c, "\x00\x01\x02 what?\r\n\r\n") })
	hints := talker(t, "127.0.0.1:0", func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")
		_, _ = io.Copy(io.Discard, c)
	})
	endless := talker(t, "127.0.0.1:0", func(c net.Conn) {
		for _, err := fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\n"); err == nil; _, err = fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\n") {
		}
	})
	silent := talker(t, "127.0.0.1:0", func(net.Conn) {})
	var fine Status
	for code := 200; code < 400; code++ {
		fine.Add(code)
	}
	var only503 Status
	only503.Add(503)
	target := addrOf(plain.Listener.Addr())
	for _, x := range []struct {
		name  string
		check Check
		limit time.Duration
		want  string
	}{
		{"it is up", Check{URI: "/up"}, patient, ""},
		{"with a body", Check{URI: "/up?very", Expect: "all very is well with GET"}, patient, ""},
		{"that matches", Check{URI: "/up", ExpectRegex: "well with GET\n$"}, patient, ""},
		{"another body", Check{URI: "/up", Expect: "ill"}, patient, `the answer does not contain "ill"`},
		{"by another method", Check{URI: "/up", Method: "OPTIONS", Expect: "OPTIONS"}, patient, ""},
		{"a redirect is an answer", Check{URI: "/moved"}, patient, ""},
		{"it is down", Check{URI: "/down"}, patient, "http: status 503"},
		{"down is what is wanted", Check{URI: "/down", Status: only503}, patient, ""},
		{"no such page", Check{URI: "/nowhere"}, patient, "http: status 404"},
		{"it is stuck", Check{URI: "/stuck"}, 50 * time.Millisecond, "no answer in time"},
		{"it ends in the middle", Check{URI: "/half", Expect: "whole"}, patient, "http: body: unexpected EOF"},
		{"nobody listens", Check{URI: "/up", Target: closed(t, "tcp")}, patient, "connect: connection refused"},
		{"it speaks another language", Check{URI: "/up", Target: garbage}, patient, "malformed HTTP"},
		{"hints come first", Check{URI: "/up", Target: hints, Expect: "well"}, patient, ""},
		{"hints without end", Check{URI: "/up", Target: endless}, patient, "http: "},
		{"it says nothing", Check{URI: "/up", Target: silent}, patient, "http: "},
		{"plain to a TLS server", Check{URI: "/up", Target: addrOf(secure.Listener.Addr())}, patient, "http: status 400"},
		{"TLS", Check{Kind: HTTPS, URI: "/up", Target: addrOf(secure.Listener.Addr()), Expect: "well"}, patient, ""},
		{"TLS of an unknown authority", Check{Kind: HTTPS, URI: "/up", Target: addrOf(secure.Listener.Addr()), Verify: true}, patient, "unknown authority"},
		{"TLS to a plain server", Check{Kind: HTTPS, URI: "/up"}, patient, "first record does not look like a TLS handshake"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := x.check
			if c.Kind != HTTPS {
				c.Kind = HTTP
			}
			if !c.Target.IsValid() {
				c.Target = target
			}
			if c.Method == "" {
				c.Method = "GET"
			}
			if c.Status == (Status{}) {
				c.Status = fine
			}
			if got := ask(t, c, x.limit); got != x.want && (x.want == "" || !strings.Contains(got, x.want)) {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
	c := Check{Kind: HTTP, Target: target, URI: "/up", Method: "GET", Host: "www.example", Status: fine}
	if got := ask(t, c, patient); got != "" || agent != "weir-health" || host != "www.example" {
		t.Errorf("%q; the server was asked by %q for %q", got, agent, host)
	}
}

// TestTLSNames looks at the server name that is sent, and at what is verified, by a server whose authority this process is told to trust.
func TestTLSNames(t *testing.T) {
	var sent string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		sent = h.ServerName
		return nil, nil
	}}
	s.StartTLS()
	defer s.Close()
	roots := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	var fine Status
	fine.Add(200)
	for _, x := range []struct{ sni, sent, want string }{
		{"", "", ""}, // the certificate is for 127.0.0.1, too
		{"example.com", "example.com", ""},
		{"other.example", "other.example", "not other.example"},
	} {
		sent = "?"
		c := Check{Kind: HTTPS, Target: addrOf(s.Listener.Addr()), URI: "/", Method: "GET", SNI: x.sni, Verify: true, Authorities: roots, Status: fine}
		if got := ask(t, c, patient); sent != x.sent || got != x.want && (x.want == "" || !strings.Contains(got, x.want)) {
			t.Errorf("sni %q: %q was sent, %q; want %q, %q", x.sni, sent, got, x.sent, x.want)
		}
	}
	for file, want := range map[string]string{"/nonexistent": "tls: no such file or directory", os.DevNull: "tls: no certificate in /dev/null"} {
		c := Check{Kind: HTTPS, Target: addrOf(s.Listener.Addr()), URI: "/", Method: "GET", Verify: true, Authorities: file, Status: fine}
		if got := ask(t, c, patient); got != want {
			t.Errorf("authorities in %s: %q, want %q", file, got, want)
		}
	}
}

// datagrams is a UDP server that answers each datagram by these.
func datagrams(t *testing.T, answer func(question []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range answer(b[:n]) {
				_, _ = c.WriteTo(a, from)
			}
		}
	}()
	return addrOf(c.LocalAddr())
}

func TestUDP(t *testing.T) {
	quiet := datagrams(t, func([]byte) [][]byte { return nil })
	echo := datagrams(t, func(b []byte) [][]byte { return [][]byte{[]byte("noise"), append([]byte("you said "), b...)} })
	for _, x := range []struct {
		name  string
		check Check
		limit time.Duration
		want  string
	}{
		{"silence is an answer where none is expected", Check{Target: quiet}, 2 * time.Second, ""},
		{"and none where one is", Check{Target: quiet, Expect: "x"}, 50 * time.Millisecond, "no answer in time"},
		{"an answer comes", Check{Target: echo}, patient, ""},
		{"the right one comes second", Check{Target: echo, Send: "hello", Expect: "said hello"}, patient, ""},
		{"a wrong one", Check{Target: echo, Send: "hello", Expect: "bye"}, 50 * time.Millisecond, "no answer in time"},
		{"nobody listens", Check{Target: closed(t, "udp")}, patient, "receive: connection refused"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := x.check
			c.Kind = UDP
			if got := ask(t, c, x.limit); got != x.want {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
}

func TestDNS(t *testing.T) {
	answer := func(rcode byte) func([]byte) [][]byte {
		return func(q []byte) [][]byte {
			stray := append([]byte(nil), q...)
			stray[1]++ // to another question
			stray[2] |= 0x80
			a := append([]byte(nil), q...)
			a[2] |= 0x80
			a[3] = rcode
			return [][]byte{{}, {1, 2, 3}, q, stray, a}
		}
	}
	for _, x := range []struct {
		name   string
		target netip.AddrPort
		limit  time.Duration
		want   string
	}{
		{"no error", datagrams(t, answer(0)), patient, ""},
		{"a server that is broken", datagrams(t, answer(2)), patient, "dns: SERVFAIL"},
		{"a server that will not", datagrams(t, answer(5)), patient, "dns: REFUSED"},
		{"a strange error", datagrams(t, answer(11)), patient, "dns: error 11"},
		{"nobody listens", closed(t, "udp"), patient, "receive: connection refused"},
		{"strays alone", datagrams(t, func(q []byte) [][]byte { return answer(0)(q)[:4] }), 50 * time.Millisecond, "no answer in time"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := ask(t, Check{Kind: DNS, Target: x.target, Query: "www.example.", QueryType: 28}, x.limit); got != x.want {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
}

// TestDNSQuery compares a query with the bytes of RFC 1035 section 4.1, written down by hand.
func TestDNSQuery(t *testing.T) {
	for _, x := range []struct{ name, want string }{
		{"www.example", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x06\x00\x01"},
		{"www.example.", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x06\x00\x01"},
		{".", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"},
	} {
		if got := string(dnsQuery(0x1234, x.name, 6)); got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

// FuzzDNSAnswer demands that whatever is taken for an answer be one to the query.
func FuzzDNSAnswer(f *testing.F) {
	query := dnsQuery(0x1234, "www.example", 6)
	good := append([]byte(nil), query...)
	good[2] |= 0x80
	f.Add(good)
	f.Add(good[:12])
	f.Add([]byte("\x12\x34\x81\x01\x00\x00\x00\x00\x00\x00\x00\x00")) // FORMERR without a question
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		err := dnsAnswer(query, b)
		if err == errNotOurs {
			return
		}
		if len(b) < 12 || string(b[:2]) != "\x12\x34" || b[2]&0x80 == 0 {
			t.Fatalf("%x was taken for an answer: %v", b, err)
		}
		if rcode := b[3] & 15; (rcode == 0) != (err == nil) {
			t.Errorf("%x, code %d: %v", b, rcode, err)
		}
		if err == nil && !strings.EqualFold(string(b[12:len(query)]), string(query[12:])) {
			t.Errorf("%x answers another question", b)
		}
	})
}

func TestICMP(t *testing.T) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Skipf("a raw socket: %v", err)
	}
	unix.Close(s)
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		t.Run(a, func(t *testing.T) {
			addr := netip.MustParseAddr(a)
			if addr.Is6() {
				c, err := net.ListenPacket("ip6:ipv6-icmp", "::1")
				if err != nil {
					t.Skipf("no IPv6: %v", err)
				}
				c.Close()
			}
			for range 3 { // the socket is opened anew each time
				if got := ask(t, Check{Kind: ICMP, Target: netip.AddrPortFrom(addr, 0)}, patient); got != "" {
					t.Error(got)
				}
			}
		})
	}
	// Nothing reaches another host without a route there; where there is one, nobody is at an address of TEST-NET-3.
	if got := ask(t, Check{Kind: ICMP, Target: netip.MustParseAddrPort("203.0.113.77:0")}, 50*time.Millisecond); got == "" {
		t.Error("nobody answers, and all is well")
	}
	for _, p := range []*pinger{pinger4, pinger6} {
		if len(p.waiting) != 0 || p.conn != nil {
			t.Errorf("%s: %d waiters are left, the socket is %v", p.network, len(p.waiting), p.conn)
		}
	}
}

// FuzzICMPReply demands that nothing be taken for a reply that is none to us.
func FuzzICMPReply(f *testing.F) {
	good := []byte{0, 0, 0, 0, byte(pinger4.id >> 8), byte(pinger4.id), 0, 7, 'x'}
	f.Add(good)
	f.Add(good[:7])
	f.Add([]byte{})
	f.Add([]byte{8, 0, 0, 0, good[4], good[5], 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if seq, ok := pinger4.parse(b); ok {
			if len(b) < 8 || b[0] != 0 || b[1] != 0 || b[4] != good[4] || b[5] != good[5] || seq != uint16(b[6])<<8|uint16(b[7]) {
				t.Errorf("%x is reply %d", b, seq)
			}
		}
		pinger4.deliver(netip.MustParseAddr("198.18.0.1"), 7) // nobody waits
	})
}

func TestExec(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no /bin/sh")
	}
	file := filepath.Join(t.TempDir(), "pid")
	for _, x := range []struct {
		name, script string
		limit        time.Duration
		want         string
	}{
		{"zero", "exit 0", patient, ""},
		{"another code", "exit 3", patient, "exec: exit status 3"},
		{"its words", "echo 'no \x1b[31mdisk'; echo more; exit 1", patient, "exec: exit status 1: no  [31mdisk"},
		{"its environment", `[ "$WEIR_ADDRESS:$WEIR_PORT" = 198.18.1.10:80 ]`, patient, ""},
		{"its arguments", `[ "$1" = "two words" ]`, patient, ""},
		{"it hangs, and its child with it", "sleep 1000 & echo $! >" + file + "; wait", 2 * time.Second, "exec: signal: killed"},
		{"it writes without end", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done | head -c 3000000; exit 1", patient, "exec: exit status 1: xxxx"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := Check{Kind: Exec, Target: netip.MustParseAddrPort("198.18.1.10:80"), Command: strings.Join([]string{"/bin/sh", "-c", x.script, "sh", "two words"}, "\x00")}
			if got := ask(t, c, x.limit); got != x.want && (x.want == "" || !strings.HasPrefix(got, x.want)) {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
	if b, err := os.ReadFile(file); err == nil {
		var pid int
		fmt.Sscan(string(b), &pid)
		for deadline := time.Now().Add(patient); !errors.Is(unix.Kill(pid, 0), unix.ESRCH) && !zombie(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("its child %d lives on", pid)
			}
		}
	}
	if got := ask(t, Check{Kind: Exec, Command: "/nonexistent/check"}, patient); got != "exec: no such file or directory" {
		t.Errorf("%q", got)
	}
}

// zombie reports whether a process is dead and waits for its parent, which in a container may never look.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}
