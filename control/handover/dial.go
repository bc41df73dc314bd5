package handover

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A daemon is asked for the conversation through its admin socket, which speaks HTTP: by the way of RFC 9110 section 7.8, as WebSocket does it. After
// the answer 101 the connection is the conversation's.
const (
	Path    = "/takeover"
	Upgrade = "weir-takeover"
)

// ErrRefused is wrapped by Dial's error if the daemon answers, but not with a conversation.
var ErrRefused = errors.New("it does not hand over")

// Dial asks the daemon on the unix socket at path for a conversation in a version of what is said in it.
func Dial(path string, version int, limit time.Duration) (*Conn, error) {
	c, err := net.DialTimeout("unix", path, limit)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UnixConn)
	if err := ask(conn, version, limit); err != nil {
		conn.Close()
		return nil, err
	}
	return New(conn), nil
}

func ask(c *net.UnixConn, version int, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: weir\r\nConnection: Upgrade\r\nUpgrade: %s/%d\r\nContent-Length: 0\r\n\r\n", Path, Upgrade, version); err != nil {
		return err
	}
	// Byte by byte: what follows the answer must not be read with it, as files come along.
	var head bytes.Buffer
	for b := make([]byte, 1); !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")); {
		if head.Len() > 8192 {
			return fmt.Errorf("%w: its answer is no HTTP", ErrRefused)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		head.Write(b)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(&head, c)), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return c.SetDeadline(time.Time{})
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		return fmt.Errorf("%w: its version knows no takeover: do a restart, which keeps connections as well", ErrRefused)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 8192))
	var failure struct{ Error string }
	if json.Unmarshal(text, &failure) != nil || failure.Error == "" {
		failure.Error = resp.Status
	}
	return fmt.Errorf("%w: %s", ErrRefused, failure.Error)
}

// Version is the one that a request asks for; it reports false if the request is for no conversation.
func Version(r *http.Request) (version int, ok bool) {
	_, err := fmt.Sscanf(r.Header.Get("Upgrade"), Upgrade+"/%d", &version)
	return version, err == nil
}

// Accept makes a request's connection the conversation's. On an error nothing is left of it.
func Accept(w http.ResponseWriter, version int) (*Conn, error) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok || buffered.Reader.Buffered() > 0 {
		return nil, errors.Join(errors.New("it must come over the unix socket, and wait for the answer"), c.Close())
	}
	err = conn.SetDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s/%d\r\n\r\n", Upgrade, version)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return New(conn), conn.SetDeadline(time.Time{})
}
