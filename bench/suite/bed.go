package suite

import (
	"errors"
	"fmt"
	"time"

	"github.com/safchain/ethtool"

	"weir/control/host/testnet"
)

// The wiring of packets. Both generator ports are in one namespace, without addresses, so that nothing answers but the generator.
//
//	gen                         dut
//	g0  .0.2  ---------------- d0  198.18.0.1/24   towards clients 198.18.16.0/20
//	g1  .1.10, .1.11 --------- d1  198.18.1.1/24   towards servers
//
// For TCP, the ends are hosts of their own:
//
//	client eth0 198.18.0.2 --- d0    dut    d1 --- eth0 198.18.1.10 server
const (
	macG0, macG1 = "02:00:00:00:00:01", "02:00:00:00:00:02"
	macD0, macD1 = "02:00:00:00:0d:00", "02:00:00:00:0d:01"

	clients    = "198.18.16.0/20"
	router     = "198.18.0.2"
	vip        = "198.18.9.9"
	server     = "198.18.1.10"
	servers    = 2 // from server on
	port       = 5353
	vipPort    = 53
	httpPort   = 8000
	vipHTTP    = 80
	bedPrefix  = "wbench"
	gatewayDut = "198.18.1.1"
)

// bed is one wiring with, perhaps, a peer running on it.
type bed struct {
	net *testnet.Net
	gen *testnet.Space // nil in a bed of hosts
	dut *testnet.Space

	client, server *testnet.Space // nil in a bed of packets
	behind         *running       // what the server runs
}

func nth(i int) string { return fmt.Sprintf("198.18.1.%d", 10+i) }

// newBed makes the wiring of packets with so many queues on each device.
func newBed(queues int) (b *bed, err error) {
	b = &bed{}
	if b.net, err = testnet.New(bedPrefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.gen, err = b.space("gen"); err != nil {
		return nil, err
	}
	if b.dut, err = b.space("dut"); err != nil {
		return nil, err
	}
	for i, macs := range [][2]string{{macG0, macD0}, {macG1, macD1}} {
		err := b.net.Veth(testnet.End{Space: b.gen, Name: fmt.Sprintf("g%d", i), MAC: macs[0], Queues: queues},
			testnet.End{Space: b.dut, Name: fmt.Sprintf("d%d", i), MAC: macs[1], Queues: queues})
		if err != nil {
			return nil, err
		}
		// Like a NIC's, the generator's devices take XDP frames also while no program of its is attached, between two runs.
		if err := b.gen.Host().RestoreOffloads(fmt.Sprintf("g%d", i), []string{"rx-gro"}); err != nil {
			return nil, err
		}
	}
	err = errors.Join(b.address(), b.dut.Neighbor("d0", router, macG0))
	for i := range servers {
		err = errors.Join(err, b.dut.Neighbor("d1", nth(i), macG1))
	}
	return b, err
}

// newHosts makes the wiring of TCP.
func newHosts() (b *bed, err error) {
	b = &bed{}
	if b.net, err = testnet.New(bedPrefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.client, err = b.space("client"); err != nil {
		return nil, err
	}
	if b.dut, err = b.space("dut"); err != nil {
		return nil, err
	}
	if b.server, err = b.space("server"); err != nil {
		return nil, err
	}
	if err := b.net.Veth(testnet.End{Space: b.client, Name: "eth0", MAC: macG0}, testnet.End{Space: b.dut, Name: "d0", MAC: macD0}); err != nil {
		return nil, err
	}
	if err := b.net.Veth(testnet.End{Space: b.server, Name: "eth0", MAC: macG1}, testnet.End{Space: b.dut, Name: "d1", MAC: macD1}); err != nil {
		return nil, err
	}
	err = errors.Join(b.address(),
		b.client.Address("eth0", router+"/24"), b.client.Route("default", "198.18.0.1"),
		b.client.Sysctl("net/ipv4/ip_local_port_range", "1024 65535"), b.client.Sysctl("net/ipv4/tcp_tw_reuse", "1"),
		b.serve(),
		// A forwarder of frames answers no ARP, and leaves none to the kernel.
		b.client.Neighbor("eth0", "198.18.0.1", macD0), b.server.Neighbor("eth0", gatewayDut, macD1),
		b.dut.Neighbor("d0", router, macG0))
	for i := range servers {
		err = errors.Join(err, b.dut.Neighbor("d1", nth(i), macG1))
	}
	return b, err
}

// space makes a namespace without IPv6, whose router solicitations would be among the frames.
func (b *bed) space(name string) (*testnet.Space, error) {
	s, err := b.net.Space(name)
	if err != nil {
		return nil, err
	}
	return s, s.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
}

// address makes dut a router between its devices.
func (b *bed) address() error {
	return errors.Join(
		b.dut.Sysctl("net/ipv4/ip_forward", "1"), b.dut.Sysctl("net/ipv4/conf/all/rp_filter", "0"), b.dut.Sysctl("net/ipv4/conf/default/rp_filter", "0"),
		b.dut.Address("d0", "198.18.0.1/24"), b.dut.Address("d1", gatewayDut+"/24"), b.dut.Route(clients, router))
}

// gro switches GRO on: a veth without an XDP program then has the receive queues that live frames go to. It never merges what the generator sends,
// UDP of nobody's socket.
func (b *bed) gro(devices ...string) error {
	return b.dut.Exec(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		for _, d := range devices {
			if err := e.Change(d, map[string]bool{"rx-gro": true}); err != nil {
				return fmt.Errorf("%s: gro on: %w", d, err)
			}
		}
		return nil
	})
}

func (b *bed) close() (err error) {
	if b.behind != nil {
		err = b.behind.stop()
	}
	err = errors.Join(err, b.net.Close())
	time.Sleep(50 * time.Millisecond) // the kernel takes namespaces apart behind our back
	return err
}

// serve gives the server its addresses and the way back.
func (b *bed) serve() (err error) {
	for i := range servers {
		err = errors.Join(err, b.server.Address("eth0", nth(i)+"/24"))
	}
	return errors.Join(err, b.server.Route("default", gatewayDut), b.server.Sysctl("net/core/somaxconn", "4096"))
}
