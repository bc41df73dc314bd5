package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/admin"
	"weir/control/config"
	"weir/control/dashboard"
	"weir/control/handover"
	"weir/vxlan"
)

// DefaultSocket is where the daemon answers unless the configuration or --socket says otherwise.
const DefaultSocket = "/run/weir.sock"

// api serves the admin socket: HTTP with JSON, one path a view, so that curl works, too.
type api struct {
	server   *http.Server
	listener net.Listener
}

// ErrRunning says that another daemon answers on the admin socket.
var ErrRunning = errors.New("another weir runs")

// listenAdmin makes the admin socket at path: mode 0660, group weir if there is one. A socket that nobody answers on is replaced.
func listenAdmin(path string) (net.Listener, error) {
	if pid, err := peerPID(path); err == nil {
		return nil, fmt.Errorf("admin socket %s: %w as pid %d", path, ErrRunning, pid)
	}
	name := path
	path = socketFile(path)
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("admin socket %s: a file of that name is in the way", name)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("admin socket: stale: %w", err)
		}
	}
	mask := syscall.Umask(0o117) // so that nobody else can connect between bind and chmod
	l, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if g, err := user.LookupGroup("weir"); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(path, -1, gid) // without the right to, root alone may connect
		}
	}
	return l, nil
}

// socketFile is where the socket that is called path is: where a symbolic link of that name leads, if there is one. By that a weir that may not
// write to /run has its socket where everybody looks for it; bind(2) itself follows no link.
func socketFile(path string) string {
	to, err := os.Readlink(path)
	if err != nil {
		return path
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return to
}

// peerPID connects to the socket at path and asks the kernel who listens.
func peerPID(path string) (pid int32, err error) {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(ctlErr, err); err != nil {
		return 0, err
	}
	return cred.Pid, nil
}

// handler is the API: one path a view, and what changes something by POST.
func (c *Control) handler() http.Handler {
	mux := &routes{}
	get := func(path string, view func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := view(r)
			answer(w, v, err)
		})
	}
	post := func(path string, change func(StationRequest) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var x StationRequest
			d := json.NewDecoder(r.Body)
			d.DisallowUnknownFields()
			if err := d.Decode(&x); err != nil {
				answer(w, nil, fmt.Errorf("the request's body: %w", err))
				return
			}
			v, err := change(x)
			answer(w, v, err)
		})
	}
	get("/stats", func(*http.Request) (any, error) { return c.Stats(), nil })
	get("/list", func(*http.Request) (any, error) { return c.Stats().Services, nil })
	get("/drops", func(*http.Request) (any, error) { return c.Stats().Drops, nil })
	get("/ports", func(*http.Request) (any, error) { return c.Stats().Ports, nil })
	get("/workers", func(*http.Request) (any, error) { return c.Workers(), nil })
	get("/frames", func(*http.Request) (any, error) { return c.Frames(), nil })
	get("/status", func(*http.Request) (any, error) { return c.Status(), nil })
	mux.HandleFunc("GET /conns", c.serveConns)
	mux.HandleFunc("DELETE /conns", func(w http.ResponseWriter, r *http.Request) {
		n, err := c.deleteConns(r)
		answer(w, Changed{n}, err)
	})
	mux.HandleFunc("POST /stats/zero", func(w http.ResponseWriter, r *http.Request) {
		n, err := c.Zero(r.FormValue("service"))
		answer(w, Changed{n}, err)
	})
	get("/explain", func(r *http.Request) (any, error) {
		q, err := questionOf(r)
		if err != nil {
			return nil, err
		}
		return c.Explain(q)
	})
	get("/rates", func(r *http.Request) (any, error) {
		interval := time.Second
		if s := r.FormValue("interval"); s != "" {
			d, err := time.ParseDuration(s)
			if err != nil || d < 10*time.Millisecond || d > time.Minute {
				return nil, fmt.Errorf("interval %q: must be a duration of 10ms to 1m", s)
			}
			interval = d
		}
		return c.Rates(r.Context(), interval)
	})
	get("/events", c.serveEvents)
	get("/vxlan", func(r *http.Request) (any, error) {
		vni, err := vniOf(r)
		if err != nil {
			return nil, err
		}
		return c.Segments(vni)
	})
	get("/fdb", func(r *http.Request) (any, error) {
		vni, err := vniOf(r)
		if err != nil {
			return nil, err
		}
		var mac vxlan.MAC
		if s := r.FormValue("mac"); s != "" {
			if mac, err = ParseMAC(s); err != nil {
				return nil, err
			}
		}
		return c.Stations(vni, mac)
	})
	get("/fdb/neighbors", func(r *http.Request) (any, error) {
		vni, err := vniOf(r)
		if err != nil {
			return nil, err
		}
		return c.HostNeighbors(vni)
	})
	post("/fdb/add", func(x StationRequest) (any, error) { return Changed{1}, c.AddStation(x) })
	post("/fdb/del", func(x StationRequest) (any, error) { return Changed{1}, c.RemoveStation(x) })
	post("/fdb/flush", func(x StationRequest) (any, error) {
		n, err := c.FlushStations(x)
		return Changed{n}, err
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		keep, err := flagOf(r, "keep")
		if err != nil {
			answer(w, nil, err)
			return
		}
		outcome, err := c.Reload(keep)
		if err != nil {
			answer(w, nil, err)
			return
		}
		status := http.StatusOK
		if !outcome.OK {
			status = http.StatusUnprocessableEntity
		}
		writeJSON(w, status, outcome)
	})
	mux.HandleFunc("POST /capture", c.serveSight("application/x-pcapng", c.openCapture))
	mux.HandleFunc("POST /trace", c.serveSight("application/x-ndjson", c.openTrace))
	mux.HandleFunc("POST /sight/end", c.endSight)
	mux.HandleFunc("GET /livez", probed(c.alive))
	mux.HandleFunc("GET /readyz", probed(c.ready))
	mux.Handle("GET /metrics", newScraper(c.core, c.log, c.glance))
	mux.HandleFunc("GET /openapi.json", serveOpenAPI)
	c.backendRoutes(mux)
	mux.ServeMux.HandleFunc("POST "+handover.Path, c.serveTakeover) // between processes of weir; not of the API
	dashboard.Register(&mux.ServeMux, c.viewers)
	return mux
}

// serve answers on l until close.
func (c *Control) serve(l net.Listener, h http.Handler) *api {
	a := &api{listener: l, server: admin.NewServer(h, c.log)}
	go func() { _ = a.server.Serve(l) }() // ends with close
	return a
}

// frontSettings is what the configuration says of the way in over TCP.
func frontSettings(c *config.Config) admin.Settings {
	return admin.Settings{Address: c.Admin.HTTP, TokenFile: c.Admin.TokenFile, Pprof: c.Admin.Pprof, Hosts: c.Admin.Hosts}
}

// refuse answers a request that may not pass.
func refuse(w http.ResponseWriter, status int, err error) { writeJSON(w, status, Failure{err.Error()}) }

// close stops answering; requests under way get a moment to end. The socket's file goes with it.
func (a *api) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
}

// vniOf is the segment that a request asks for, zero if it asks for all.
func vniOf(r *http.Request) (uint32, error) {
	s := r.FormValue("vni")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 24)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("vni %q: must be 1 to 16777215", s)
	}
	return uint32(n), nil
}

// Changed is how many entries a request changed.
type Changed struct {
	Entries int `json:"entries"`
}

// Failure is what a request is answered with that was wrong or could not be done.
type Failure struct {
	Error string `json:"error"`
}

// answer writes v, or what went wrong: 404 for what is not there, 409 for what the configuration says otherwise,
// 422 for what it does not allow, else 400.
func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, v)
	case errors.Is(err, ErrNoSegment), errors.Is(err, ErrNoStation), errors.Is(err, ErrNoPlace),
		errors.Is(err, ErrNoService), errors.Is(err, ErrNoBackend):
		writeJSON(w, http.StatusNotFound, Failure{err.Error()})
	case errors.Is(err, ErrConfigured), errors.Is(err, config.ErrHasBackend), errors.Is(err, config.ErrAmbiguous):
		writeJSON(w, http.StatusConflict, Failure{err.Error()})
	case errors.As(err, new(config.EditError)), errors.Is(err, ErrInvalid):
		writeJSON(w, http.StatusUnprocessableEntity, Failure{err.Error()})
	case errors.Is(err, ErrStuck), errors.Is(err, ErrLeft):
		writeJSON(w, http.StatusServiceUnavailable, Failure{err.Error()})
	case errors.As(err, new(*http.MaxBytesError)):
		writeJSON(w, http.StatusRequestEntityTooLarge, Failure{err.Error()})
	default:
		writeJSON(w, http.StatusBadRequest, Failure{err.Error()})
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}
