package host

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Socket is one end of the host's own TCP or UDP traffic.
type Socket struct {
	Protocol string         // tcp or udp
	Local    netip.AddrPort // an unspecified address: of every address of the host
	Waits    bool           // for whoever comes: a listener, or a UDP socket without a peer
}

// Sockets are the TCP and UDP sockets of the namespace.
func (h *Host) Sockets() (all []Socket, err error) {
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		path := "/proc/thread-self/net/" + name
		var text []byte
		err := h.in(func() (err error) {
			text, err = os.ReadFile(path)
			return err
		})
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fail("read", path, err)
		}
		all = append(all, parseSockets(strings.TrimSuffix(name, "6"), text)...)
	}
	return all, nil
}

// States of /proc/net/tcp and udp (include/net/tcp_states.h).
const (
	tcpListen = "0A"
	udpAlone  = "07" // TCP_CLOSE: not connected
)

// parseSockets reads /proc/net/tcp, or another of its kind: a title, then "  0: 0100007F:1F90 00000000:0000 0A ...".
func parseSockets(protocol string, text []byte) (all []Socket) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 {
			continue
		}
		local, ok := parseSocketAddress(f[1])
		if !ok {
			continue // the title
		}
		all = append(all, Socket{protocol, local, f[3] == tcpListen && protocol == "tcp" || f[3] == udpAlone && protocol == "udp"})
	}
	return all
}

// parseSocketAddress reads ADDRESS:PORT. The address is words of 32 bits, each printed as the machine's own number of what stands in memory in wire order.
func parseSocketAddress(s string) (a netip.AddrPort, ok bool) {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return a, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), err == nil
}
