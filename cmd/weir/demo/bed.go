package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"weir/control/host"
	"weir/control/host/testnet"
)

// bed is the network with the servers that run in it and the client's ways to ask them.
type bed struct {
	net     *testnet.Net
	client  *testnet.Space
	lb      *testnet.Space
	fabric  *testnet.Space
	http    http.Client
	closers []io.Closer
	dir     string

	mu    sync.Mutex
	dials map[string]uint64 // connections made from the client, by where to
}

// servers are the names of the servers; number i has the addresses 198.18.1.11+i and 2001:db8:1::11+i.
var servers = []string{"w1", "w2", "w3"}

func newBed() (b *bed, err error) {
	b = &bed{dials: map[string]uint64{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
			b = nil
		}
	}()
	if b.dir, err = os.MkdirTemp("", "weir-demo-"); err != nil {
		return b, err
	}
	if b.net, err = testnet.New("wdemo"); err != nil {
		return b, err
	}
	if b.client, err = b.net.Space("client"); err != nil {
		return b, err
	}
	if b.lb, err = b.net.Space("lb"); err != nil {
		return b, err
	}
	if b.fabric, err = b.net.Space("switch"); err != nil {
		return b, err
	}
	if err = b.fabric.Exec(func() error {
		la := netlink.NewLinkAttrs()
		la.Name = "br0"
		bridge := &netlink.Bridge{LinkAttrs: la}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	}); err != nil {
		return b, err
	}
	err = errors.Join(
		b.net.Veth(testnet.End{Space: b.client, Name: "eth0"}, testnet.End{Space: b.lb, Name: "wan"}),
		plug(b.net, b.fabric, "lb", testnet.End{Space: b.lb, Name: "lan"}),
		b.lb.Address("wan", "198.18.0.1/24", "2001:db8::1/64"),
		b.lb.Address("lan", "198.18.1.1/24", "2001:db8:1::1/64"),
		b.client.Address("eth0", "198.18.0.2/24", "2001:db8::2/64"),
		b.client.Route("default", "198.18.0.1"),
		b.client.Route("default", "2001:db8::1"),
	)
	if err != nil {
		return b, err
	}
	for i, name := range servers {
		s, err := b.net.Space(name)
		if err != nil {
			return b, err
		}
		host := strconv.Itoa(11 + i)
		err = errors.Join(
			plug(b.net, b.fabric, name, testnet.End{Space: s, Name: "eth0"}),
			s.Address("eth0", "198.18.1."+host+"/24", "2001:db8:1::"+host+"/64"),
			s.Route("default", "198.18.1.1"),
			s.Route("default", "2001:db8:1::1"),
		)
		if err == nil {
			err = b.serve(s, name)
		}
		if err != nil {
			return b, err
		}
	}
	b.http = http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: b.dial}}
	return b, nil
}

// plug joins a device to the switch.
func plug(n *testnet.Net, fabric *testnet.Space, port string, e testnet.End) error {
	if err := n.Veth(e, testnet.End{Space: fabric, Name: port}); err != nil {
		return err
	}
	return fabric.Exec(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
}

// dial connects from the client's namespace.
func (b *bed) dial(ctx context.Context, network, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	err = b.client.Exec(func() error {
		c, err = d.DialContext(ctx, network, to)
		return err
	})
	if err == nil {
		b.mu.Lock()
		b.dials[to]++
		b.mu.Unlock()
	}
	return c, err
}

// dialed is how many connections were made to an address and port.
func (b *bed) dialed(to string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials[to]
}

// get asks for a URL over a connection of its own and returns the answer.
func (b *bed) get(ctx context.Context, url string) (string, error) {
	body, err := b.open(ctx, url)
	if err != nil {
		return "", err
	}
	defer body.Close()
	answer, err := io.ReadAll(body)
	return string(answer), err
}

func (b *bed) open(ctx context.Context, url string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return resp.Body, nil
}

// download gets n bytes from a server behind the VIP and compares every one.
func (b *bed) download(ctx context.Context, n int) error {
	body, err := b.open(ctx, fmt.Sprintf("http://198.18.9.9/bytes/%d", n))
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, pieceLen)
	for at := 0; at < n; at += pieceLen {
		got := buf[:min(pieceLen, n-at)]
		if _, err := io.ReadFull(body, got); err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", at, n, err)
		}
		if !bytes.Equal(got, piece(at, len(got))) {
			return fmt.Errorf("wrong bytes between %d and %d", at, at+len(got))
		}
	}
	return nil
}

// ask sends a datagram and returns the answer.
func ask(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("who?")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// leftovers is what a stopped balancer has left in its namespace.
func (b *bed) leftovers() (left []string, err error) {
	neighbors, err := b.lb.Host().Neighbors()
	if err != nil {
		return nil, err
	}
	for _, n := range neighbors {
		if n.Managed && n.Protocol == host.Protocol { // one that was let go keeps the number
			left = append(left, "neighbour "+n.Addr.String())
		}
	}
	err = b.lb.Exec(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if x := l.Attrs().Xdp; x != nil && x.Attached {
				left = append(left, "program on "+l.Attrs().Name)
			}
			if strings.HasPrefix(l.Attrs().Name, "weir") {
				left = append(left, l.Attrs().Name)
			}
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				if s := a.IP.String(); s == "198.18.9.9" || s == "2001:db8:9::9" {
					left = append(left, "VIP "+s)
				}
			}
		}
		return nil
	})
	return left, err
}

// close removes everything, whatever state it is in.
func (b *bed) close() error {
	for _, c := range b.closers {
		_ = c.Close() // servers; their listeners are gone with the namespaces anyway
	}
	var err error
	if b.net != nil {
		err = b.net.Close()
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}
