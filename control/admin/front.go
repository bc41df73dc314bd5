package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Settings of a front, as configured.
type Settings struct {
	Address   netip.AddrPort // invalid: it does not listen
	TokenFile string         // empty: nobody may change anything
	Pprof     bool           // profiles of this process
	Hosts     []string       // names that it is asked for by, beside the host's own and addresses
}

// Front answers over TCP. One goroutine changes it, by Prepare and what that returns.
type Front struct {
	mux    *http.ServeMux
	log    *slog.Logger
	refuse func(w http.ResponseWriter, status int, err error)
	gate   atomic.Pointer[gate]
	asking chan struct{} // a place for each request under way that may take long

	address  netip.AddrPort // of listener, as configured
	server   *http.Server
	listener net.Listener // nil: it does not listen

	inherited   net.Listener // of another process, until Prepare has a use for it
	inheritedAt netip.AddrPort
}

// gate is what a request is measured by.
type gate struct {
	token *Token
	pprof bool
	hosts []string
}

// NewFront makes a front that does not listen yet. Requests that may not pass are answered by refuse.
func NewFront(log *slog.Logger, refuse func(w http.ResponseWriter, status int, err error)) *Front {
	mux := http.NewServeMux()
	mux.HandleFunc(profiles, pprof.Index)
	mux.HandleFunc(profiles+"cmdline", pprof.Cmdline)
	mux.HandleFunc(profiles+"profile", pprof.Profile)
	mux.HandleFunc(profiles+"symbol", pprof.Symbol)
	mux.HandleFunc(profiles+"trace", pprof.Trace)
	f := &Front{mux: mux, log: log, refuse: refuse, asking: make(chan struct{}, maxAsking)}
	f.gate.Store(&gate{})
	return f
}

// Handle says who answers what is let through. It is called once, before the first Commit.
func (f *Front) Handle(h http.Handler) { f.mux.Handle("/", h) }

var errBusy = fmt.Errorf("%d requests are under way, and there are no more at once", maxAsking)

const profiles = "/debug/pprof/"

// ServeHTTP lets a request through, or refuses it.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := f.gate.Load()
	profile := strings.HasPrefix(r.URL.Path, profiles)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case !open[r.URL.Path] && !(g.token != nil && g.token.borne(r)) && !named(r, g.hosts): // who has the token is no page of an attacker's
		f.refuse(w, http.StatusMisdirectedRequest, misnamed(r))
		return
	case profile && !g.pprof:
		f.refuse(w, http.StatusNotFound, errors.New("admin.pprof is off"))
		return
	case g.token == nil && (profile || reads), g.token != nil && reads && !profile:
	case g.token == nil:
		f.refuse(w, http.StatusForbidden, errReadOnly)
		return
	case !g.token.borne(r):
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
		f.refuse(w, http.StatusUnauthorized, errNoToken)
		return
	}
	if !open[r.URL.Path] {
		select {
		case f.asking <- struct{}{}:
			defer func() { <-f.asking }()
		default:
			w.Header().Set("Retry-After", "1")
			f.refuse(w, http.StatusServiceUnavailable, errBusy)
			return
		}
	}
	f.mux.ServeHTTP(w, r)
}

// Change is a change of a front that is ready to be made, or to be forgotten.
type Change struct {
	front    *Front
	to       Settings
	gate     gate
	listener net.Listener // of another address than now; nil: none is needed
}

// Prepare opens the address and reads the token of next, and changes nothing yet. The token is read anew even if its file is the same. What it
// returns must be committed or aborted.
func (f *Front) Prepare(next Settings) (*Change, error) {
	c := &Change{front: f, to: next, gate: gate{pprof: next.Pprof, hosts: next.Hosts}}
	if !next.Address.IsValid() {
		return c, nil
	}
	if next.TokenFile != "" {
		token, open, err := LoadToken(next.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("admin.token_file: %w", err)
		}
		if open {
			f.log.Warn("everybody on this host can read the token", "kind", "admin", "file", next.TokenFile, "cure", "chmod o-r "+next.TokenFile)
		}
		c.gate.token = token
	}
	if f.listener != nil && next.Address == f.address {
		return c, nil
	}
	if f.listener == nil && f.inherited != nil && next.Address == f.inheritedAt {
		c.listener, f.inherited = f.inherited, nil
		return c, nil
	}
	l, err := net.Listen("tcp", next.Address.String())
	if err != nil {
		if f.listener != nil && f.address.Port() == next.Address.Port() && errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("admin.http: %w (by the address it has now, %s: take it away in one reload, give the new one in the next)", err, f.address)
		}
		return nil, fmt.Errorf("admin.http: %w", err)
	}
	c.listener = l
	return c, nil
}

// Commit makes the change: from the next request on the new settings hold. An address that goes is free at once; requests under way there, of
// which one may have asked for the change, get a second to end.
func (c *Change) Commit() {
	f := c.front
	f.gate.Store(&c.gate)
	if f.inherited != nil { // nobody would answer there, and the address would not be free for a later Prepare
		_ = f.inherited.Close()
		f.inherited = nil
	}
	if c.to.Address.IsValid() && c.listener == nil {
		return
	}
	if f.listener != nil {
		_ = f.listener.Close()
		go shut(f.server)
	}
	f.address, f.server, f.listener = c.to.Address, nil, nil
	if c.listener == nil {
		return
	}
	listener := limit(c.listener, maxConns)
	server := NewServer(listener.roomy(f), f.log)
	f.server, f.listener = server, listener
	go func() { _ = server.Serve(listener) }() // ends with the listener
	f.log.Info("answering over http", "kind", "admin", "address", listener.Addr().String(), "changes", c.gate.token != nil, "pprof", c.gate.pprof)
}

// Abort forgets the change.
func (c *Change) Abort() {
	if c.listener != nil {
		_ = c.listener.Close()
	}
}

// Inherit gives a front that does not listen yet the listener of another process', at the address that was configured there. Prepare takes it if
// the address is still that one, else the next Commit closes it.
func (f *Front) Inherit(l net.Listener, address netip.AddrPort) {
	f.inherited, f.inheritedAt = l, address
}

// Offer is a copy of the listener's descriptor, for another process, and the address as it is configured; ok is false if f does not listen.
func (f *Front) Offer() (fd int, address netip.AddrPort, ok bool, err error) {
	l, ok := f.listener.(*limited)
	if !ok {
		return -1, netip.AddrPort{}, false, nil
	}
	fd, err = copyOf(l.Listener)
	return fd, f.address, true, err
}

func copyOf(l net.Listener) (fd int, err error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctl := raw.Control(func(had uintptr) { fd, err = unix.FcntlInt(had, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(ctl, err)
}

// Addr is where the front listens, nil if nowhere.
func (f *Front) Addr() net.Addr {
	if f.listener == nil {
		return nil
	}
	return f.listener.Addr()
}

// Close stops answering; requests under way get a second to end.
func (f *Front) Close() {
	if f.listener != nil {
		shut(f.server)
		f.server, f.listener = nil, nil
	}
}

func shut(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close()
	}
}
