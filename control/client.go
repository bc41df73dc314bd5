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
	"time"
)

// Client asks a daemon through its admin socket. A daemon that takes the connection and says nothing is given up: it hangs, or still starts.
type Client struct {
	Patience time.Duration // with the beginning of an answer, and with each further piece of it; see NewClient
	http     http.Client
	path     string
}

// ErrNoDaemon says that no daemon answers on the admin socket.
var ErrNoDaemon = errors.New("no weir answers")

// patience is longer than any view takes. What changes something may have to wait until control comes to it, which after waitForControl says itself
// that it does not.
const (
	patience       = 15 * time.Second
	waitForControl = 30 * time.Second
)

// NewClient makes a client for the socket at path, with a patience of 15 s.
func NewClient(path string) *Client {
	c := &Client{Patience: patience, path: path}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			x, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				if errors.Is(err, os.ErrPermission) {
					return nil, notAdmitted(err)
				}
				if ctx.Err() != nil {
					return nil, err
				}
				return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, path, err)
			}
			return x, nil
		},
	}
	return c
}

// notAdmitted adds to the error of a socket that one may not use who may.
func notAdmitted(err error) error {
	return fmt.Errorf("%w (it is for root and for the group of the socket: sudo, or a member of group weir where weir runs as user weir)", err)
}

// silence is the error of a daemon that has taken a connection and does not answer.
func (c *Client) silence(after time.Duration) error {
	who := "its process"
	if pid, err := peerPID(c.path); err == nil {
		who = fmt.Sprintf("pid %d", pid)
	}
	return fmt.Errorf("%w on %s: %s has the socket and has said nothing for %v: it still starts, is stopped, or hangs "+
		"(`kill -QUIT` ends it and logs where it stands; started again, it takes over the connections)", ErrNoDaemon, c.path, who, after)
}

// do sends a request. The answer's body must be closed, and is waited for without end if endless.
func (c *Client) do(r *http.Request, endless bool) (*http.Response, error) {
	wait := c.Patience
	if r.Method != http.MethodGet {
		wait = max(wait, waitForControl+c.Patience)
	} else {
		for _, asked := range []string{"interval", "wait"} { // rates are those of so long, and where nothing happens events are none for so long
			if d, err := time.ParseDuration(r.URL.Query().Get(asked)); err == nil && d > 0 {
				wait += d
			}
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(wait, func() { cancel(c.silence(wait)) })
	resp, err := c.http.Do(r.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	if endless {
		timer.Stop()
	}
	resp.Body = &patientBody{resp.Body, ctx, cancel, timer, wait, endless}
	return resp, nil
}

// patientBody gives each piece of an answer the time that its beginning had.
type patientBody struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	wait    time.Duration
	endless bool
}

func (b *patientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch cause := context.Cause(b.ctx); {
	case err != nil && err != io.EOF && cause != nil:
		return n, cause
	case n > 0 && !b.endless:
		b.timer.Reset(b.wait)
	}
	return n, err
}

func (b *patientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// Get asks for a view, such as "/stats", and decodes it into v.
func (c *Client) Get(path string, v any) error {
	r, err := http.NewRequest(http.MethodGet, "http://weir"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(r, false)
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
	r, err := http.NewRequest(http.MethodPost, "http://weir"+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(r, true)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, decode(resp, err, new(struct{}))
	}
	return resp, nil
}

// EndSight has the daemon end the stream of resp as if its time were over.
func (c *Client) EndSight(resp *http.Response) error {
	return c.send(http.MethodPost, "/sight/end?id="+url.QueryEscape(resp.Header.Get("Weir-Sight")), nil, new(struct{}))
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
	resp, err := c.do(r, false)
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
