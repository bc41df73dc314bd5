package chaos

import (
	"context"
	"fmt"
	"net"
	"time"
)

// probe asks for one answer, with little patience.
func (s *suite) probe(ctx context.Context, network, to string) (err error) {
	const limit = time.Second
	d := net.Dialer{Timeout: limit}
	var c net.Conn
	err = s.bed.client.Exec(func() error {
		c, err = d.DialContext(ctx, network, to)
		return err
	})
	if err != nil {
		time.Sleep(10 * time.Millisecond) // a refusal comes at once
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	number := s.load.numbers.Add(1)
	question := record{what: whatEcho, conn: number, body: bodyOf(nil, number, 0, 10)}
	if _, err := c.Write(question.append(nil)); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	var in record
	if err := in.parse(buf[:n]); err != nil || in.what != whatAnswer || in.conn != number {
		return fmt.Errorf("%d bytes of conn %d: %v", n, in.conn, err)
	}
	return nil
}
