package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"weir/control/host/testnet"
)

// The network. Both sides of the balancer have a switch, so that a device of its own vanishes and nobody else's.
//
//	client eth0 ---- street ---- wan  lb  lan ---- floor ---- eth0 of s1, s2, s3
//	       eth1 ------------------------------------'
//
// Each server has the VIPs on lo and keeps quiet about them (dr), answers what came so through the client's eth1, and has an end of the tunnel:
// vx0, in the segment whose gateway the balancer is.
const (
	bedPrefix = "wchaos"
	servers   = 3
	sticks    = 4 // persistent clients
	vni       = 5001

	vip4, vip6         = "198.18.9.9", "2001:db8:9::9"
	vipNet4, vipNet6   = "198.18.9.0/24", "2001:db8:9::/64"
	wan4, wan6         = "198.18.0.1", "2001:db8::1"
	lan4, lan6         = "198.18.1.1", "2001:db8:1::1"
	client4, client6   = "198.18.0.2", "2001:db8::2"
	back4              = "198.18.1.2"
	local4             = "198.18.1.4" // fullnat's
	tenantNet, gateway = "172.16.1.0/24", "172.16.1.1"
	wanMAC, lanMAC     = "02:00:00:00:01:0c", "02:00:00:00:01:0d"
	gatewayMAC         = "02:00:00:00:50:01"
)

func server4(i int) string { return fmt.Sprintf("198.18.1.%d", 11+i) }
func server6(i int) string { return fmt.Sprintf("2001:db8:1::%d", 11+i) }
func tenant4(i int) string { return fmt.Sprintf("172.16.1.%d", 11+i) }

// stick is the address of persistent client i.
func stick(i int) string { return fmt.Sprintf("198.18.0.%d", 50+i) }

type bed struct {
	net           *testnet.Net
	client, lb    *testnet.Space
	street, floor *testnet.Space // the switches
	servers       [servers]*testnet.Space
	processes     [servers]*testnet.Cmd
	queues        int    // of each device
	live          bool   // switches take XDP frames
	self          string // the program that is a server, too
}

// newBed makes the network and starts the servers.
func newBed(self string, queues int, live bool) (b *bed, err error) {
	b = &bed{queues: queues, live: live, self: self}
	if b.net, err = testnet.New(bedPrefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.net.Close())
			b = nil
		}
	}()
	space := func(name string) *testnet.Space {
		s, problem := b.net.Space(name)
		err = errors.Join(err, problem)
		if err == nil {
			err = patient(s)
		}
		return s
	}
	b.client, b.lb, b.street, b.floor = space("client"), space("lb"), space("street"), space("floor")
	for i := range b.servers {
		b.servers[i] = space(fmt.Sprintf("s%d", i+1))
	}
	if err != nil {
		return b, err
	}
	if err := errors.Join(bridge(b.street), bridge(b.floor), b.wire()); err != nil {
		return b, err
	}
	for i := range b.servers {
		if err := errors.Join(b.furnish(i), b.startServer(i)); err != nil {
			return b, fmt.Errorf("server %d: %w", i+1, err)
		}
	}
	return b, nil
}

// patient has a namespace's TCP try again 2 s after an outage rather than two minutes (Linux 6.15 has the setting), and for longer than any outage
// lasts: by default it gives up after 15 attempts, 8 if its program has closed the connection, and then resets it.
func patient(s *testnet.Space) error {
	for key, value := range map[string]string{"tcp_rto_max_ms": "2000", "tcp_retries2": "200", "tcp_orphan_retries": "200"} {
		if err := s.Sysctl("net/ipv4/"+key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// bridge makes a namespace a switch.
func bridge(s *testnet.Space) error {
	return s.Exec(func() error {
		la := netlink.NewLinkAttrs()
		la.Name = "br0"
		snooping := false // it would hold back neighbour solicitations at first
		br := &netlink.Bridge{LinkAttrs: la, MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		return netlink.LinkSetUp(br)
	})
}

// plug joins a device to a switch. A veth device receives on the queue that its peer sent on, so both have as many.
func (b *bed) plug(to *testnet.Space, port string, e testnet.End) error {
	e.Queues = b.queues
	if err := b.net.Veth(e, testnet.End{Space: to, Name: port, Queues: b.queues}); err != nil {
		return err
	}
	if b.live {
		if err := to.Host().RestoreOffloads(port, []string{"rx-gro"}); err != nil {
			return err
		}
	}
	return to.Exec(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, br)
	})
}

// wire makes the client's and the balancer's devices.
func (b *bed) wire() error {
	err := errors.Join(
		b.lb.Sysctl("net/ipv6/conf/default/keep_addr_on_down", "1"), b.lb.Sysctl("net/ipv6/conf/all/keep_addr_on_down", "1"),
		b.plug(b.street, "client", testnet.End{Space: b.client, Name: "eth0"}),
		b.plug(b.floor, "client", testnet.End{Space: b.client, Name: "eth1"}),
		b.device("wan"), b.device("lan"))
	if err != nil {
		return err
	}
	own := []string{client4 + "/24", client6 + "/64"}
	for i := range sticks {
		own = append(own, stick(i)+"/24")
	}
	return errors.Join(
		b.client.Address("eth0", own...), b.client.Address("eth1", back4+"/24"),
		b.client.Route(vipNet4, wan4), b.client.Route(vipNet6, wan6))
}

// device makes one of the balancer's two, with its addresses.
func (b *bed) device(name string) error {
	if name == "wan" {
		return errors.Join(b.plug(b.street, "wan", testnet.End{Space: b.lb, Name: "wan", MAC: wanMAC}), b.lb.Address("wan", wan4+"/24", wan6+"/64"))
	}
	return errors.Join(b.plug(b.floor, "lan", testnet.End{Space: b.lb, Name: "lan", MAC: lanMAC}), b.lb.Address("lan", lan4+"/24", lan6+"/64"))
}

// furnish gives server i its addresses, VIPs, ways back and tunnel.
func (b *bed) furnish(i int) error {
	s := b.servers[i]
	err := errors.Join(
		b.plug(b.floor, s.Name, testnet.End{Space: s, Name: "eth0"}),
		s.Address("eth0", server4(i)+"/24", server6(i)+"/64"),
		s.Route("default", lan4), s.Route("default", lan6))
	for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2", "rp_filter": "0"} {
		err = errors.Join(err, s.Sysctl("net/ipv4/conf/all/"+key, value))
	}
	err = errors.Join(err, s.Address("lo", vip4+"/32"))
	for _, line := range []string{
		"rule add from " + vipNet4 + " lookup 100", "route add default via " + back4 + " table 100",
		fmt.Sprintf("link add vx0 type vxlan id %d local %s dstport 4789 noudpcsum", vni, server4(i)),
		"link set vx0 mtu 1450 up",
		"addr add " + tenant4(i) + "/24 dev vx0",
		"rule add from " + tenantNet + " lookup 101", "route add default via " + gateway + " dev vx0 table 101",
	} {
		if err == nil {
			err = s.IP(line)
		}
	}
	if err == nil {
		out, fault := s.Command("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", lan4).CombinedOutput()
		if fault != nil {
			err = fmt.Errorf("bridge fdb: %w: %s", fault, out)
		}
	}
	return err
}

// startServer starts the process of server i and waits until it listens.
func (b *bed) startServer(i int) error {
	c := b.servers[i].Command(b.self)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d,%s,%s", roleKey, i+1, server4(i), server6(i)))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	b.processes[i] = c
	said := make(chan string, 1)
	go func() {
		buf := make([]byte, 6)
		n, _ := io.ReadFull(out, buf)
		said <- string(buf[:n])
	}()
	select {
	case word := <-said:
		if word != "ready\n" {
			return fmt.Errorf("the server says %q", word)
		}
	case <-time.After(20 * time.Second):
		return errors.New("the server is not ready after 20 s")
	}
	return nil
}

// killServer ends the process of server i at once and waits until it is gone.
func (b *bed) killServer(i int) {
	_ = b.processes[i].Process.Kill()
	_ = b.processes[i].Wait()
}
