// Package handover carries what one daemon hands to another over a unix socket: messages of JSON, and open files with them.
//
// It knows how, not what: control says what a message means. A message is
//
//	"weir" | length of the text | number of files | text, JSON of a kind and a body | a byte with up to 64 files, for as many as there are
//
// with numbers of four bytes, big-endian. The kernel hands files over with the byte that they were sent with (SCM_RIGHTS), so nobody
// who reads the text as text loses one.
//
// Two ends that must agree who has something, though either may die at any instant, need to know three things of each other: that the
// other did something, that it has given up (Abort), and that it is dead. A connection that ends is the last: the kernel closes it when no
// thread of the process runs any more. Who gives up alive says so first.
package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a message. The text of a hundred thousand servers takes some 40 MiB.
const (
	maxText  = 1 << 28
	maxFiles = 1 << 12
	together = 64 // files that go with one byte; the kernel takes 253
)

var mark = [4]byte{'w', 'e', 'i', 'r'}

// What can become of the other end.
var (
	ErrGone    = errors.New("the other process is gone")
	ErrAborted = errors.New("the other process gave up")
	ErrSilent  = errors.New("the other process does not answer")
)

// kindAbort is the kind of a message that ends the conversation; its body says why.
const kindAbort = "abort"

// Conn is one end. One goroutine uses it.
type Conn struct{ c *net.UnixConn }

// New makes an end of a connection whose bytes so far have all been read.
func New(c *net.UnixConn) *Conn { return &Conn{c} }

type message struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Peer is the process at the other end, by the kernel's word. Of one that has accepted the connection it is who listened.
func (c *Conn) Peer() (*unix.Ucred, error) {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	ctl := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(ctl, err)
}

// Send sends a message with files, which stay the caller's, and waits no longer than limit.
func (c *Conn) Send(limit time.Duration, kind string, body any, files ...int) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%s: %d files, %d are the most", kind, len(files), maxFiles)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	text, err := json.Marshal(message{kind, b})
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if len(text) > maxText {
		return fmt.Errorf("%s: %d bytes, %d are the most", kind, len(text), maxText)
	}
	head := binary.BigEndian.AppendUint32(mark[:len(mark):len(mark)], uint32(len(text)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(files)))
	if err := c.c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if _, err := c.c.Write(append(head, text...)); err != nil {
		return c.failed("send", kind, err)
	}
	for len(files) > 0 {
		n := min(len(files), together)
		if _, _, err := c.c.WriteMsgUnix([]byte{byte(n)}, unix.UnixRights(files[:n]...), nil); err != nil {
			return c.failed("send files", kind, err)
		}
		files = files[n:]
	}
	return nil
}

// Abort says that this end gives up, and why. The other need not be there any more.
func (c *Conn) Abort(why error) { _ = c.Send(time.Second, kindAbort, why.Error()) }

// Receive waits for a message of a kind, reads its body into to, and returns its files, which are the caller's. Files of a message that is not
// understood are closed.
func (c *Conn) Receive(limit time.Duration, kind string, to any) (files []int, err error) {
	if err := c.c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	var head [12]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return nil, c.failed("wait for", kind, err)
	}
	length, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if [4]byte(head[:4]) != mark || length > maxText || count > maxFiles {
		return nil, fmt.Errorf("%s: what came is no message", kind)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(c.c, text); err != nil {
		return nil, c.failed("read", kind, err)
	}
	if files, err = c.files(int(count)); err == nil {
		err = understand(text, kind, to)
	} else {
		err = c.failed("read files", kind, err)
	}
	if err != nil {
		Close(files)
		return nil, err
	}
	return files, nil
}

func understand(text []byte, kind string, to any) error {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if m.Kind == kindAbort {
		var why string
		if json.Unmarshal(m.Body, &why) != nil || why == "" {
			return ErrAborted
		}
		return fmt.Errorf("%w: %s", ErrAborted, why)
	}
	if m.Kind != kind {
		return fmt.Errorf("%s is waited for, %q came", kind, m.Kind)
	}
	if err := json.Unmarshal(m.Body, to); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// files reads count files.
func (c *Conn) files(count int) (files []int, err error) {
	for len(files) < count {
		var b [1]byte
		room := make([]byte, unix.CmsgSpace(4*together))
		n, filled, flags, _, err := c.c.ReadMsgUnix(b[:], room)
		if err == nil && n == 0 {
			err = io.EOF
		}
		var got []int
		if err == nil {
			got, err = rights(room[:filled])
		}
		files = append(files, got...)
		switch {
		case err != nil:
		case flags&unix.MSG_CTRUNC != 0:
			err = errors.New("files are missing: more than this process may open (ulimit -n)")
		case len(got) != int(b[0]) || len(files) > count:
			err = fmt.Errorf("%d files came, %d were sent", len(got), b[0])
		}
		if err != nil {
			return files, err
		}
	}
	return files, nil
}

func rights(control []byte) (files []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		files = append(files, got...)
	}
	return files, nil
}

// failed says what an error means for the conversation.
func (c *Conn) failed(what, kind string, err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		err = ErrGone
	case errors.As(err, &timeout) && timeout.Timeout():
		err = ErrSilent
	}
	return fmt.Errorf("%s %q: %w", what, kind, err)
}

// Close closes files.
func Close(files []int) {
	for _, fd := range files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.c.Close() }
