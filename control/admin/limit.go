package admin

import (
	"net"
	"net/http"
	"sync"
)

// A front has at most maxConns connections at once; a scrape, a dashboard and a few people need ten. Of these maxAsking may be busy with what takes long,
// such as all connections or a comparison with a file of ten thousand services, and maxIdle may be kept open by who asks no more. So some are left, whatever
// the others do, for who asks whether we live: who has no answer to that kills us.
const (
	maxAsking = 64
	maxIdle   = 64
	maxConns  = maxAsking + maxIdle + 32
)

// limited is a listener that has at most cap(slots) connections open at once. The next ones wait in the kernel's backlog, and those that are
// idle or slow make way within idleTime.
type limited struct {
	net.Listener
	slots chan struct{}
	once  sync.Once
	done  chan struct{}
}

func limit(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

// Accept waits for a slot first: a connection that was accepted and could not be served would be worse off than one that waits.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: c, slots: l.slots}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// roomy has connections closed after their answer while there are many.
func (l *limited) roomy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(l.slots) > maxIdle {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// slotted gives its slot back when it is closed, which net/http may do twice.
type slotted struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *slotted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
