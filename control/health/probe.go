package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"syscall"
)

// Ask does a check once, as Probe.
func Ask(ctx context.Context, c *Check) error {
	switch c.Kind {
	case TCP:
		return askTCP(ctx, c)
	case HTTP, HTTPS:
		return askHTTP(ctx, c)
	case UDP:
		return askUDP(ctx, c)
	case DNS:
		return askDNS(ctx, c)
	case ICMP:
		return askICMP(ctx, c)
	}
	return askExec(ctx, c)
}

// dial connects to the target. The connection ends with ctx.
func dial(ctx context.Context, network string, c *Check) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, c.Target.String())
	if err != nil {
		return nil, plain("connect", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return conn, nil
}

// plain is what went wrong without the addresses, which whoever reads it knows: "connect: connection refused".
func plain(what string, err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, net.ErrClosed) { // dial closes it when the time is over
		return errTimeout
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return fmt.Errorf("%s: %w", what, no)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// maxAnswer is how much of an answer is looked at.
const maxAnswer = 64 << 10

// askTCP opens a connection, sends what is to be sent and waits for what is expected. It closes by RST, which leaves no TIME_WAIT here and nothing
// to be read there.
func askTCP(ctx context.Context, c *Check) error {
	conn, err := dial(ctx, "tcp", c)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	if c.Send != "" {
		if _, err := io.WriteString(conn, c.Send); err != nil {
			return plain("send", err)
		}
	}
	if c.Expect == "" && c.ExpectRegex == "" {
		return nil
	}
	var answer []byte
	for len(answer) < maxAnswer {
		var b [4096]byte
		n, err := conn.Read(b[:])
		answer = append(answer, b[:n]...)
		switch missing := c.missing(answer); {
		case missing == nil:
			return nil
		case err == io.EOF:
			return missing
		case err != nil:
			return plain("receive", err)
		}
	}
	return c.missing(answer)
}

// askUDP sends a datagram. An answer of any kind will do where none is expected, and so will silence: only an ICMP error says that nobody is there.
func askUDP(ctx context.Context, c *Check) error {
	conn, err := dial(ctx, "udp", c)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, c.Send); err != nil {
		return plain("send", err)
	}
	silent := c.Expect == "" && c.ExpectRegex == ""
	answer := make([]byte, maxAnswer)
	for {
		n, err := conn.Read(answer)
		var timeout net.Error
		switch {
		case err == nil && c.missing(answer[:n]) == nil:
			return nil
		case err == nil: // something else; what is expected may still come
		case silent && errors.As(err, &timeout) && timeout.Timeout(), silent && ctx.Err() == context.DeadlineExceeded:
			return nil
		default:
			return plain("receive", err)
		}
	}
}

// missing says what the answer lacks, nil if nothing.
func (c *Check) missing(answer []byte) error {
	if c.Expect != "" && !bytes.Contains(answer, []byte(c.Expect)) {
		return fmt.Errorf("the answer does not contain %.40q", c.Expect)
	}
	if c.ExpectRegex != "" && !expression(c.ExpectRegex).Match(answer) {
		return fmt.Errorf("the answer does not match %.40q", c.ExpectRegex)
	}
	return nil
}

var expressions sync.Map // compiled once: text -> *regexp.Regexp

// expression is a regular expression that the configuration was checked for; one that is none matches nothing.
func expression(text string) *regexp.Regexp {
	if x, ok := expressions.Load(text); ok {
		return x.(*regexp.Regexp)
	}
	x, err := regexp.Compile(text)
	if err != nil {
		x = regexp.MustCompile(`\z.`)
	}
	expressions.Store(text, x)
	return x
}
