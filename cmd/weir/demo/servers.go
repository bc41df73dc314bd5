package demo

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"weir/control/host/testnet"
)

// serve starts a server's HTTP on port 8000 and its answers to datagrams on port 5353. / tells the server's name, /bytes/N gives N bytes at
// some 4 MB/s, so that a download lasts while things change.
func (b *bed) serve(s *testnet.Space, name string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n < 0 {
			http.Error(w, "how many?", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		for at := 0; at < n; at += pieceLen {
			if _, err := w.Write(piece(at, min(pieceLen, n-at))); err != nil {
				return
			}
			time.Sleep(pieceLen * time.Second / (4 << 20))
		}
	})
	var l net.Listener
	var u net.PacketConn
	if err := s.Exec(func() (err error) {
		if l, err = net.Listen("tcp", ":8000"); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp4", ":5353")
		return err
	}); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	b.closers = append(b.closers, server, u)
	go func() { _ = server.Serve(l) }() // ends with close
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(name), from)
		}
	}()
	return nil
}

// pieceLen is how much of a download is sent at once, in bytes.
const pieceLen = 64 << 10

// piece is n bytes of the stream that every server gives, from offset at on.
func piece(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		x := uint32(at+i) * 2654435761
		b[i] = byte(x >> 24)
	}
	return b
}
