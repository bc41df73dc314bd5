package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ports that every server listens on.
const (
	tcpPort = 8000
	udpPort = 5353
)

// roleKey is the environment variable that makes a process a server: its number, then the addresses that it answers datagrams on, with commas.
const roleKey = "WEIR_CHAOS_SERVER"

// ServeIfAsked makes this process a server and does not return, if the suite has started it as one. A program that uses the suite calls it first.
func ServeIfAsked() {
	role := os.Getenv(roleKey)
	if role == "" {
		return
	}
	fields := strings.Split(role, ",")
	number, err := strconv.Atoi(fields[0])
	if err == nil {
		err = serve(byte(number), fields[1:])
	}
	fmt.Fprintln(os.Stderr, "server:", err)
	os.Exit(1)
}

// serve is a server: it says "ready" when it listens, and serves until it is killed.
func serve(number byte, addrs []string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT) // ^C is for the suite
	s := server{number: number, incarnation: uint64(time.Now().UnixNano())}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", tcpPort))
	if err != nil {
		return err
	}
	for _, a := range addrs {
		c, err := net.ListenPacket("udp", net.JoinHostPort(a, strconv.Itoa(udpPort)))
		if err != nil {
			return err
		}
		roomy(c)
		go s.answer(c)
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.talk(c)
	}
}

// roomy gives a UDP socket room for what comes while a busy machine does not let its program run.
func roomy(c any) {
	if u, ok := c.(*net.UDPConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
		}
	}
}

type server struct {
	number      byte
	incarnation uint64
}

// talk serves one TCP connection. The records of one come in order, without a gap, and from nobody else.
func (s *server) talk(c net.Conn) {
	defer c.Close()
	var in record
	var buf, out, want []byte
	var conn uint64
	for n := uint64(0); ; n++ {
		if in.read(c, &buf) != nil {
			return
		}
		if n == 0 {
			conn = in.conn
		}
		if in.what == whatGet {
			s.give(c, &in)
			return
		}
		reply := record{what: whatAnswer, server: s.number, incarnation: s.incarnation, conn: in.conn, seq: in.seq, body: in.body}
		want = bodyOf(want[:0], in.conn, in.seq, len(in.body))
		if in.conn != conn || in.seq != n || !bytes.Equal(want, in.body) {
			reply.what = whatBroken
			reply.body = fmt.Appendf(nil, "conn %x seq %d, want conn %x seq %d, bytes as they should be: %v", in.conn, in.seq, conn, n, bytes.Equal(want, in.body))
		}
		out = reply.append(out[:0])
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// give sends as many bytes as are asked for.
func (s *server) give(c net.Conn, in *record) {
	n, err := strconv.Atoi(string(in.body))
	if err != nil || n < 0 || n > maxBody {
		return
	}
	r := record{what: whatAnswer, server: s.number, incarnation: s.incarnation, conn: in.conn, seq: in.seq, body: bodyOf(nil, in.conn, in.seq, n)}
	if _, err := c.Write(r.append(nil)); err != nil {
		return
	}
	// The client closes first, so that the connection's remains are at the client, and whoever dials has more ports than one run uses.
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	_, _ = io.Copy(io.Discard, c)
}

// answer sends every datagram back, with the server's name.
func (s *server) answer(c net.PacketConn) {
	buf := make([]byte, 64<<10)
	var in record
	var out []byte
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || in.parse(buf[:n]) != nil {
			continue
		}
		in.what, in.server, in.incarnation = whatAnswer, s.number, s.incarnation
		out = in.append(out[:0])
		_, _ = c.WriteTo(out, from) // what cannot be sent is lost, and missed
	}
}
