package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
		outcome := c.Reload(keep)
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
	case errors.Is(err, ErrStuck):
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

// Client asks a daemon through its admin socket.
type Client struct{ http http.Client }

// ErrNoDaemon says that no daemon answers on the admin socket.
var ErrNoDaemon = errors.New("no weir answers")

// NewClient makes a client for the socket at path.
func NewClient(path string) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				if errors.Is(err, os.ErrPermission) {
					return nil, err
				}
				return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, path, err)
			}
			return c, nil
		},
	}}}
}

// Get asks for a view, such as "/stats", and decodes it into v.
func (c *Client) Get(path string, v any) error {
	resp, err := c.http.Get("http://weir" + path)
	return decode(resp, err, v)
}

// Reload has the daemon load its configuration anew and tells the outcome.
func (c *Client) Reload() (o Outcome, err error) {
	return o, c.send(http.MethodPost, "/reload", nil, &o)
}

// ReloadKeeping is Reload that keeps changes which are not in the file.
func (c *Client) ReloadKeeping() (o Outcome, err error) {
	return o, c.send(http.MethodPost, "/reload?keep=true", nil, &o)
}

// Change sends a change of the configuration, such as a PATCH of /services/web/backends/w1, and tells the outcome.
func (c *Client) Change(method, path string, keys map[string]any) (o Outcome, err error) {
	var body any
	if keys != nil {
		body = keys
	}
	return o, c.send(method, path, body, &o)
}

// DeleteConns ends connections and tells how many: query is as for a view of them, and has all=true if it is about all.
func (c *Client) DeleteConns(query url.Values) (x Changed, err error) {
	return x, c.send(http.MethodDelete, "/conns?"+query.Encode(), nil, &x)
}

// Zero has the counters of a service, or of all if that is empty, shown from zero on, and tells how many services those were.
func (c *Client) Zero(service string) (x Changed, err error) {
	return x, c.send(http.MethodPost, "/stats/zero?"+url.Values{"service": {service}}.Encode(), nil, &x)
}

// Stream asks for a capture or trace, "/capture" or "/trace", and returns the answer while it is being written. Its body must be closed.
func (c *Client) Stream(path string, q url.Values) (*http.Response, error) {
	resp, err := c.http.Post("http://weir"+path+"?"+q.Encode(), "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, decode(resp, err, new(struct{}))
	}
	return resp, nil
}

// EndSight has the daemon end the stream of resp as if its time were over.
func (c *Client) EndSight(resp *http.Response) error {
	x, err := c.http.Post("http://weir/sight/end?id="+url.QueryEscape(resp.Header.Get("Weir-Sight")), "", nil)
	return decode(x, err, new(struct{}))
}

// Stations sends a request about stations, such as "/fdb/add", and tells how many entries it changed.
func (c *Client) Stations(path string, r StationRequest) (x Changed, err error) {
	return x, c.send(http.MethodPost, path, r, &x)
}

// send sends a request with body as JSON, unless that is nil, and decodes the answer into v.
func (c *Client) send(method, path string, body, v any) error {
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequest(method, "http://weir"+path, &b)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	return decode(resp, err, v)
}

func decode(resp *http.Response, err error, v any) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err // what is around it is the name of a host that there is not
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var f Failure
	switch {
	case resp.StatusCode == http.StatusOK:
	case json.Unmarshal(text, &f) == nil && f.Error != "":
		if resp.StatusCode == http.StatusUnprocessableEntity {
			return fmt.Errorf("%s: %w", f.Error, ErrInvalid)
		}
		return errors.New(f.Error)
	case resp.StatusCode != http.StatusUnprocessableEntity: // that has an outcome
		return fmt.Errorf("the daemon answers %s to %s", resp.Status, resp.Request.URL.Path)
	}
	return json.Unmarshal(text, v)
}
