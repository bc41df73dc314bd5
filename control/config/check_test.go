package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestChecks gives one mistake at a time to a configuration that is right otherwise, and demands that exactly this be told. The broken
// files of testdata hold the same rules to standing together.
func TestChecks(t *testing.T) {
	const (
		wan = "{name: wan, interface: eth1}"
		web = "{name: web, vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}]}"
	)
	for _, x := range []struct{ name, text, want string }{
		{"version 2", "version: 2\nports: [" + wan + "]", "version: must be 1, not 2"},
		{"no version", "ports: [" + wan + "]", "version is missing"},
		{"no ports", "version: 1", "ports is missing"},
		{"empty ports", "version: 1\nports: []", "ports: is empty: at least one port is needed"},
		{"queues as a number", ports("{name: wan, interface: eth1, queues: 4}"), `ports[0].queues: must be all or a list such as "0-3": is 4 a number of queues, or the queue "4"?`},
		{"queues twice", ports(`{name: wan, interface: eth1, queues: "0-3,2"}`), `ports[0].queues: 2 stands twice in "0-3,2"`},
		{"live frames without XDP", ports("{name: wan, interface: eth1, driver: af_packet, xdp_send: live}"), "ports[0].xdp_send: live frames are sent by driver af_xdp, not by af_packet (cure: leave the key out)"},
		{"live frames in zero copy", ports("{name: wan, interface: eth1, xdp_mode: zerocopy, xdp_send: live}"), "ports[0].xdp_send: live frames are for copy mode, not for xdp_mode zerocopy (cure: leave the key out)"},
		{"XDP mode without XDP", ports("{name: wan, interface: eth1, driver: af_packet, xdp_mode: native}"), "warning: ports[0].xdp_mode: has no effect with driver af_packet"},
		{"queues of a packet socket", ports(`{name: wan, interface: eth1, driver: af_packet, queues: "0-3"}`), "ports[0].queues: is for driver af_xdp"},
		{"queues and workers", "version: 1\nengine: {workers: 2}\nports: [{name: wan, interface: eth1, queues: \"0-2\"}]\n", "ports[0].queues: must be as many as engine.workers, 2: each worker has one of them, not 3"},
		{"one device, two sets of queues", ports(`{name: a, interface: eth1, queues: "0-3"}, {name: b, interface: eth1, vlan: 5}`), "ports[1].queues: must be as in ports[0]"},
		{"port address twice", ports("{name: a, interface: eth1, addresses: [198.18.0.1/24, 198.18.0.1/16]}"), "ports[0].addresses[1]: duplicate address 198.18.0.1"},
		{"MTU below IPv4's", ports("{name: wan, interface: eth1, mtu: 575}"), "ports[0].mtu: must be 576 to 3500, not 575"},
		{"MTU of IPv6", ports(`{name: wan, interface: eth1, mtu: 1279, addresses: ["2001:db8::1/64"]}`), "ports[0].mtu: must be at least 1280"},
		{"mem without MAC", ports("{name: wan, driver: mem, addresses: [198.18.0.1/24]}"), "ports[0]: mac is missing: driver mem needs it"},
		{"interface name too long", ports("{name: wan, interface: abcdefghijklmnop}"), "ports[0].interface: must be 1 to 15 bytes long, not 16"},
		{"name with a space", ports(`{name: "my wan", interface: eth1}`), "ports[0].name: must not contain spaces"},
		{"zero workers", "version: 1\nengine: {workers: 0}\nports: [" + wan + "]", "engine.workers: must be 1 to 256, not 0"},
		{"workers without CPUs", "version: 1\nengine: {workers: {}}\nports: [" + wan + "]", "engine.workers: cpus is missing"},
		{"more workers than can be", "version: 1\nengine: {workers: {cpus: 0-256}}\nports: [" + wan + "]", "engine.workers: there can be 256 workers, not 257"},
		{"backwards CPUs", "version: 1\nengine: {workers: {cpus: 5-2}}\nports: [" + wan + "]", `engine.workers.cpus: the range "5-2" ends before it begins`},
		{"neighbor twice", ports(wan) + "neighbors: [{address: 198.18.0.2, mac: 02:00:00:00:00:01, port: wan}, {address: 198.18.0.2, mac: 02:00:00:00:00:02, port: wan}]",
			"neighbors[1].address: duplicate neighbor 198.18.0.2 on port wan, first in line 3"},
		{"neighbor without port", ports(wan) + "neighbors: [{address: 198.18.0.2, mac: 02:00:00:00:00:01}]", "neighbors[0]: port is missing"},
		{"zero MAC", ports(wan) + "neighbors: [{address: 198.18.0.2, mac: 00:00:00:00:00:00, port: wan}]", "neighbors[0].mac: a MAC address cannot be zero"},
		{"broadcast VIP", services("{vip: 255.255.255.255, port: 80, backends: [{address: 198.18.1.10}]}"), "services[0].vip: a VIP cannot be the broadcast address"},
		{"no VIP", services("{vips: [], port: 80, backends: [{address: 198.18.1.10}]}"), "services[0].vips: is empty"},
		{"service twice", services(web + ", {name: web2, vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}]}"),
			"services[1].vip: tcp 198.18.9.9 port 80 is services[0] already (web, line 3)"},
		{"every port twice", services("{vip: 198.18.9.9, port: 0, persistence: {}, backends: [{address: 198.18.1.10}]}, {vip: 198.18.9.9, port: 0, persistence: {}, name: b, backends: [{address: 198.18.1.10}]}"),
			"services[1].vip: tcp 198.18.9.9 port 0 is services[0] already"},
		{"range from 0", services("{vip: 198.18.9.9, port: 0-80, backends: [{address: 198.18.1.10}]}"), `services[0].port: ports are 1 to 65535, not "0-80"`},
		{"port too high", services("{vip: 198.18.9.9, port: 65536, backends: [{address: 198.18.1.10}]}"), `services[0].port: ports are 1 to 65535, not "65536"`},
		{"SCTP once", services("{vip: 198.18.9.9, port: 80, protocol: sctp, one_packet: true, backends: [{address: 198.18.1.10}]}"), "services[0].one_packet: is for udp only, not for sctp"},
		{"both conntracks", services("{vip: 198.18.9.9, port: 80, sloppy_tcp: true, conntrack: {sloppy_tcp: true}, backends: [{address: 198.18.1.10}]}"),
			"services[0].sloppy_tcp: is given in services[0].conntrack, too"},
		{"max_connections of a service", services("{vip: 198.18.9.9, port: 80, conntrack: {max_connections: 5}, backends: [{address: 198.18.1.10}]}"), "services[0].conntrack.max_connections: unknown key"},
		{"another backend's address as a name", services(`{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10, name: "198.18.1.11:80"}, {address: 198.18.1.11}]}`),
			"services[0].backends[0].name: 198.18.1.11:80 is another backend, in line 3: give this one a name of its own"},
		{"tunnel to another port", services("{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10, forward: gue, port: 81}]}"), "services[0].backends[0].port: must be the service's port 80"},
		{"fullnat of one backend", services("{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10, forward: fullnat}]}"), "services[0]: fullnat is missing"},
		{"fullnat without backends", services("{vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.9.9]}, backends: [{address: 198.18.1.10}]}"),
			"services[0].fullnat.addresses[0]: 198.18.9.9 is the VIP of services[0]"},
		{"fullnat by another service's server", services("{vip: 198.18.9.9, port: 80, forward: fullnat, fullnat: {addresses: [198.18.1.11]}, backends: [{address: 198.18.1.10}]}, {name: b, vip: 198.18.9.9, port: 81, backends: [{address: 198.18.1.11}]}"),
			"services[0].fullnat.addresses[0]: 198.18.1.11 is a backend of services[1]: a fullnat address is this host's"},
		{"fullnat by the link's address", services(`{vip: "2001:db8:9::9", port: 80, forward: fullnat, fullnat: {addresses: ["fe80::1"]}, backends: [{address: "2001:db8:1::10"}]}`),
			"services[0].fullnat.addresses[0]: a fullnat address cannot be a link-local address: fe80::1"},
		{"TCP option in UDP", services("{vip: 198.18.9.9, port: 53, protocol: udp, forward: fullnat, fullnat: {addresses: [198.18.1.1], client_address: toa}, backends: [{address: 198.18.1.10}]}"),
			"services[0].fullnat.client_address: toa is a TCP option: not for udp"},
		{"server by its link-local address", services(`{vip: "2001:db8:9::9", port: 80, backends: [{address: "fe80::10"}]}`),
			"services[0].backends[0].address: a backend cannot be a link-local address: fe80::10"},
		{"chained services", services("{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.9.10}]}, {name: b, vip: 198.18.9.10, port: 80, backends: [{address: 198.18.1.10}]}"),
			"services[0].backends[0].address: 198.18.9.10 is the VIP of services[1]: services cannot be chained"},
		{"allowed and denied", services("{vip: 198.18.9.9, port: 80, allow: [198.18.0.0/16, 198.19.1.0/24], deny: [198.19.0.0/16, 198.18.3.0/24], backends: [{address: 198.18.1.10}]}"),
			"warning: services[0].allow[1]: 198.19.1.0/24 is within 198.19.0.0/16, which deny has"},
		{"backups alone", services("{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10, backup: true}, {address: 198.18.1.11, backup: true}]}"),
			"warning: services[0].backends: all are backups"},
		{"sloppy UDP", services("{vip: 198.18.9.9, port: 53, protocol: udp, sloppy_tcp: true, backends: [{address: 198.18.1.10}]}"), "warning: services[0].sloppy_tcp: has no effect on udp"},
		{"sloppy SCTP", services("{vip: 198.18.9.9, port: 53, protocol: sctp, conntrack: {sloppy_tcp: true}, backends: [{address: 198.18.1.10}]}"),
			"warning: services[0].conntrack.sloppy_tcp: has no effect on sctp"},
		{"reuse in UDP", services("{vip: 198.18.9.9, port: 53, protocol: udp, conn_reuse_mode: 2, backends: [{address: 198.18.1.10}]}"),
			"warning: services[0].conn_reuse_mode: has no effect on udp"},
		{"templates of nobody", services("{vip: 198.18.9.9, port: 80, expire_quiescent_template: true, backends: [{address: 198.18.1.10}]}"),
			"warning: services[0].expire_quiescent_template: has no effect without persistence"},
		{"MTU of tenants", ports("{name: wan, interface: eth1, mtu: 1500}, {name: tenant, interface: eth2, mtu: 1500}") + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, access: [{port: tenant}]}]}",
			"warning: vxlan.segments[0].access[0].port: the MTU of tenant is 1500, but through the tunnels of wan, whose MTU is 1500, go packets of 1450 bytes: that for tenant and its stations, or 1550 for wan"},
		{"MTU of tenants over IPv6", ports("{name: wan, interface: eth1, mtu: 1550}, {name: tenant, interface: eth2, mtu: 1500}") + `vxlan: {segments: [{vni: 1, vtep: "2001:db8:2::1", access: [{port: tenant}]}]}`,
			"warning: vxlan.segments[0].access[0].port: the MTU of tenant is 1500, but through the tunnels of wan, whose MTU is 1550, go packets of 1480 bytes"},
		{"MTU of the group's port", ports("{name: wan, interface: eth1, mtu: 3500}, {name: lan, interface: eth3, mtu: 1500}, {name: tenant, interface: eth2, mtu: 1500}") +
			"vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, group: 239.1.1.1, group_interface: lan, access: [{port: tenant}]}]}",
			"warning: vxlan.segments[0].access[0].port: the MTU of tenant is 1500, but through the tunnels of lan"},
		{"MTU of the peer's link", ports("{name: wan, interface: eth1, mtu: 3500}, {name: lan, interface: eth3, mtu: 1500, addresses: [192.0.2.1/24]}, {name: tenant, interface: eth2, mtu: 1500}") +
			"vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, peers: [192.0.2.2], access: [{port: tenant}]}]}",
			"warning: vxlan.segments[0].access[0].port: the MTU of tenant is 1500, but through the tunnels of lan"},
		{"FDB holds the gateway", ports(wan) + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, fdb: [{mac: 02:00:00:00:50:01, vtep: 192.0.2.2}], gateway: {address: 172.16.1.1/24, mac: 02:00:00:00:50:01}}]}",
			"vxlan.segments[0].fdb[0].mac: this is the gateway's address"},
		{"FDB points at us", ports(wan) + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, fdb: [{mac: 02:00:00:00:50:01, vtep: 192.0.2.1}]}]}",
			"vxlan.segments[0].fdb[0].vtep: 192.0.2.1 is our own VTEP"},
		{"a peer that is our other VTEP", ports(wan) + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, peers: [192.0.2.3]}, {vni: 2, vtep: 192.0.2.3}]}",
			"vxlan.segments[0].peers[0]: 192.0.2.3 is our own VTEP, of vxlan.segments[1]"},
		{"a station behind our other VTEP", ports(wan) + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, fdb: [{mac: 02:00:00:00:50:01, vtep: 192.0.2.3}]}, {vni: 2, vtep: 192.0.2.3}]}",
			"vxlan.segments[0].fdb[0].vtep: 192.0.2.3 is our own VTEP, of vxlan.segments[1]"},
		{"link-local VTEP", ports(wan) + `vxlan: {segments: [{vni: 1, vtep: "fe80::1"}]}`, "vxlan.segments[0].vtep: a VTEP cannot be a link-local address: fe80::1"},
		{"link-local peer", ports(wan) + `vxlan: {segments: [{vni: 1, vtep: "2001:db8::1", peers: ["fe80::2"]}]}`, "vxlan.segments[0].peers[0]: a peer cannot be a link-local address: fe80::2"},
		{"more stations than all can have", segments("max_entries: 262145"), "vxlan.segments[0].max_entries: must be 1 to 262144, not 262145"},
		{"service on a VTEP's port", segments("port: 4789") + "services: [{vip: 192.0.2.1, port: 4000-5000, protocol: udp, backends: [{address: 198.18.1.10}]}]",
			"services[0].vip: UDP port 4789 of 192.0.2.1 is that of the VTEP of vxlan.segments[0]"},
		{"backend that is the gateway", tenancy("{vip: 198.18.9.9, port: 80, forward: vxlan, backends: [{address: 172.16.1.1, vni: 5001}]}"),
			"services[0].backends[0].address: 172.16.1.1 is the address of the segment's gateway, which is ours"},
		{"backend that is on no link of the gateway", tenancy("{vip: 198.18.9.9, port: 80, forward: vxlan, backends: [{address: 172.16.3.7, vni: 5001}]}"),
			"warning: services[0].backends[0].address: 172.16.3.7 is in no network of the gateway of segment 5001"},
		{"gateway that is a network", gateway("{address: 172.16.1.0/24, mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway.addresses[0]: 172.16.1.0/24 is the first or last address of its network, which no station has"},
		{"gateway that is all", gateway("{addresses: [172.16.1.1/31, 172.16.7.255/21], mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway.addresses[1]: 172.16.7.255/21 is the first or last address of its network"},
		{"gateway without address", gateway("{mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway: address is missing"},
		{"gateway with both", gateway("{address: 172.16.1.1/24, addresses: [172.16.1.2/24], mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway.addresses: address is given, too: write one of them"},
		{"gateway with no addresses", gateway("{addresses: [], mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway.addresses: is empty: at least one address is needed"},
		{"gateway's address twice", gateway("{addresses: [172.16.1.1/24, 172.16.1.1/16], mac: 02:00:00:00:50:01}"), "vxlan.segments[0].gateway.addresses[1]: duplicate address 172.16.1.1"},
		{"gateway by its link-local address", gateway(`{address: "fe80::1/64", mac: 02:00:00:00:50:01}`), "vxlan.segments[0].gateway.address: a gateway's link-local address is made of its MAC: leave out fe80::1/64"},
		{"reaches a word", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [underlai]}"), `vxlan.segments[0].gateway.reaches[0]: must be a segment's VNI or underlay, not "underlai" (did you mean "underlay"?)`},
		{"reaches VNI 0", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [0]}"), "vxlan.segments[0].gateway.reaches[0]: must be 1 to 16777215, not 0"},
		{"reaches nobody", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [5009]}"), "vxlan.segments[0].gateway.reaches[0]: segment 5009 is not among vxlan.segments"},
		{"reaches twice", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [underlay, underlay]}"), "vxlan.segments[0].gateway.reaches[1]: stands twice"},
		{"reaches a segment without gateway", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [5002]}", "{vni: 5002, vtep: 192.0.2.1}"),
			"vxlan.segments[0].gateway.reaches[0]: segment 5002 has no gateway, from which stations in it are reached"},
		{"reaches one that does not reach back", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [5002]}", "{vni: 5002, vtep: 192.0.2.1, gateway: {address: 172.16.2.1/24, mac: 02:00:00:00:50:02}}"),
			"warning: vxlan.segments[0].gateway.reaches[0]: segment 5002 does not reach 5001: answers do not come back"},
		{"reaches one network twice", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [5002, 5003]}", "{vni: 5002, vtep: 192.0.2.1, gateway: {address: 172.17.1.1/24, mac: 02:00:00:00:50:02, reaches: [5001]}}",
			"{vni: 5003, vtep: 192.0.2.1, gateway: {address: 172.17.0.1/16, mac: 02:00:00:00:50:03, reaches: [5001]}}"),
			"vxlan.segments[0].gateway.reaches[1]: 172.17.0.0/16 of segment 5003 and 172.17.1.0/24 of segment 5002 overlap: they cannot be told apart in one segment"},
		{"two tenants' networks outside", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [underlay]}", "{vni: 5002, vtep: 192.0.2.1, gateway: {address: 172.16.0.1/16, mac: 02:00:00:00:50:02, reaches: [underlay]}}"),
			"vxlan.segments[1].gateway.reaches[0]: 172.16.0.0/16 of segment 5002 and 172.16.1.0/24 of segment 5001 overlap: they cannot be told apart outside"},
		{"VIP that is a routed network", gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01, reaches: [underlay]}") + "services: [{vip: 172.16.1.0/24, port: 80, backends: [{address: 198.18.1.10}]}]",
			"services[0].vip: 172.16.1.0/24 is the network of segment 5001, which reaches the underlay"},
		{"VIP in no segment", services("{vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 198.18.1.10}]}"), "services[0].vni: segment 5001 is not among vxlan.segments"},
		{"VIP in a segment without gateway", tenancy("{vip: 172.16.2.100, vni: 5002, port: 80, backends: [{address: 198.18.1.10}]}"), "services[0].vni: segment 5002 has no gateway, which answers for the VIPs in it"},
		{"VIP in a segment that is a prefix", tenancy("{vip: 172.16.1.128/25, vni: 5001, port: 80, backends: [{address: 198.18.1.10}]}"), "services[0].vip: a VIP in a segment is one address, not 172.16.1.128/25"},
		{"VIP in a segment of the other family", tenancy(`{vips: ["2001:db8::100"], vni: 5001, port: 80, backends: [{address: "2001:db8::10"}]}`), "services[0].vips[0]: 2001:db8::100 is IPv6, but the gateway of segment 5001 has no such address"},
		{"VIP in a segment, answered past it", tenancy("{vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 198.18.1.10, forward: ipip}]}"), "services[0].backends[0].forward: ipip leaves the answer to the server, which has no way into segment 5001: use nat, fullnat or vxlan"},
		{"VIP in a segment, answered from another", tenancy("{vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 172.16.3.7, forward: vxlan-dr, vni: 5003}]}"), "services[0].backends[0].vni: must be the service's segment 5001: vxlan-dr leaves the answer to the server"},
		{"VIP in a segment twice", tenancy("{vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 198.18.1.10}]}, {name: b, vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 198.18.1.10}]}"),
			"services[1].vip: tcp 172.16.1.100 port 80 is services[0] already"},
		{"chained in a segment", tenancy("{vip: 172.16.1.100, vni: 5001, port: 80, backends: [{address: 198.18.1.10}]}, {name: b, vip: 198.18.9.9, port: 80, backends: [{address: 172.16.1.100, forward: vxlan, vni: 5001}]}"),
			"services[1].backends[0].address: 172.16.1.100 is the VIP of services[0]: services cannot be chained"},
		{"group without a port", segments("group: 239.1.1.1"), "vxlan.segments[0].group: group_interface is missing"},
		{"port of no group", segments("group_interface: wan"), "vxlan.segments[0].group_interface: is for group only"},
		{"group on no port", segments("group: 239.1.1.1, group_interface: wam"), `vxlan.segments[0].group_interface: unknown port "wam" (did you mean "wan"?)`},
		{"group on an access port", segments("group: 239.1.1.1, group_interface: wan, access: [{port: wan}]"),
			"vxlan.segments[0].group_interface: wan is an access port of the segment"},
		{"group that is a station", segments("group: 192.0.2.9, group_interface: wan"), "vxlan.segments[0].group: must be a multicast address such as 239.1.1.1 or ff05::1, not 192.0.2.9"},
		{"group within the host", segments(`group: "ff01::1", group_interface: wan`), "vxlan.segments[0].group: ff01::1 does not leave the host"},
		{"group of another family", segments(`group: "ff05::1", group_interface: wan`), "vxlan.segments[0].group: ff05::1 is IPv6, but our VTEP is IPv4"},
		{"group and nobody else", segments("group: 239.1.1.1, group_interface: wan, accept: peers"), "vxlan.segments[0].accept: there are no peers whose frames could be taken"},
		{"accepts everyone", segments("accept: all"), `vxlan.segments[0].accept: unknown source of frames "all": must be one of peers, any`},
		{"strangers stay strange", segments("accept: any, learning: false"), "warning: vxlan.segments[0].learning: stations behind VTEPs that are no peers stay unknown"},
		{"TTL of 0", segments("ttl: 0"), "vxlan.segments[0].ttl: must be 1 to 255, not 0"},
		{"TTL inherited, nearly", segments("ttl: inherited"), `vxlan.segments[0].ttl: must be 1 to 255 or inherit, not "inherited" (did you mean "inherit"?)`},
		{"DSCP of 64", segments("dscp: 64"), "vxlan.segments[0].dscp: must be 0 to 63, not 64"},
		{"DSCP in quotes", segments(`dscp: "46"`), "vxlan.segments[0].dscp: must be a whole number, not text: write it without quotes, 46"},
		{"kept tags and a VLAN", segments("keep_tags: true, access: [{port: wan}, {port: wan, vlan: 7}]"),
			"vxlan.segments[0].keep_tags: with wan untagged every VLAN of it is the segment's, but VLAN 7 is vxlan.segments[0].access[1]"},
		{"kept tags and a port", ports("{name: wan, interface: eth1}, {name: lan, interface: eth1, vlan: 7}") + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, keep_tags: true, access: [{port: wan}]}]}",
			"vxlan.segments[0].keep_tags: with wan untagged every VLAN of it is the segment's, but ports[1] is on the same interface"},
		{"DSCP as a list", segments(`dscp: [46]`), "vxlan.segments[0].dscp: must be a whole number, not a list"},
		{"floods without unit", segments("flood_limit: 100"), `vxlan.segments[0].flood_limit: must be a rate with its unit, not 100 (did you mean "100/s"?)`},
		{"clamp of bridged", segments("mss_clamp: bridged"), `vxlan.segments[0].mss_clamp: unknown extent of the clamp "bridged": must be one of true, false, all`},
		{"checksum as a word", segments("udp_checksum: yes"), `vxlan.segments[0].udp_checksum: must be true or false, not "yes": write true`},
		{"peer without address", segments("peers: [{port: 4789}]"), "vxlan.segments[0].peers[0]: address is missing"},
		{"peer twice, once in full", segments("peers: [192.0.2.2, {address: 192.0.2.2, port: 8472}]"), "vxlan.segments[0].peers[1]: duplicate peer 192.0.2.2"},
		{"peer on port 0", segments("peers: [{address: 192.0.2.2, port: 0}]"), "vxlan.segments[0].peers[0].port: must be 1 to 65535, not 0"},
		{"max_connections too many", ports(wan) + "conntrack: {max_connections: 67108865}", "conntrack.max_connections: must be 1024 to 67108864, not 67108865"},
		{"too many answers", ports(wan) + "limits: {answers: 1000001/s}", `limits.answers: must be 0/s to 1000000/s, not "1000001/s"`},
		{"answers a minute", ports(wan) + "limits: {answers: 60/m}", `limits.answers: must be a rate such as 1000/s, not "60/m"`},
		{"negative grace", ports(wan) + "grace: -1s", `grace: must be 0s to 10m, not "-1s"`},
		{"token without HTTP", ports(wan) + "admin: {token_file: /etc/weir/token}", "warning: admin.token_file: has no effect without admin.http"},
		{"profiles without HTTP", ports(wan) + "admin: {pprof: true}", "warning: admin.pprof: has no effect without admin.http"},
		{"names without HTTP", ports(wan) + "admin: {hosts: [lb1.example]}", "warning: admin.hosts: has no effect without admin.http"},
		{"a name with a port", ports(wan) + "admin: {http: \"127.0.0.1:9180\", hosts: [lb1, \"lb1.example:9180\"]}", `admin.hosts[1]: must be a name such as lb1.example, without scheme or port, not "lb1.example:9180"`},
		{"profiles, perhaps", ports(wan) + "admin: {http: \"127.0.0.1:9180\", pprof: maybe}", `admin.pprof: must be true or false, not "maybe"`},
		{"HTTP without port", ports(wan) + "admin: {http: 127.0.0.1}", `admin.http: must be an address with a port such as 127.0.0.1:9180, not "127.0.0.1"`},
		{"socket too long", ports(wan) + "admin: {socket: /" + strings.Repeat("x", 107) + "}", "admin.socket: must be 1 to 107 bytes long, not 108"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, diags := Parse("f", []byte(x.text))
			if len(diags) != 1 {
				t.Fatalf("%d diagnostics, want one with %s:\n%v", len(diags), x.want, Errors(diags))
			}
			want := x.want
			if !strings.HasPrefix(want, "warning: ") {
				want = "error: " + want
			}
			if !strings.Contains(diags[0].String(), ": "+want) {
				t.Errorf("got  %s\nwant %s", diags[0], want)
			}
		})
	}
}

// TestBounds holds the ends of every range to being within it.
func TestBounds(t *testing.T) {
	for _, text := range []string{
		ports(`{name: a, interface: abcdefghijklmno, mtu: 576, vlan: 4094}`),
		ports(`{name: a, interface: eth1, mtu: 3500}`),
		ports(`{name: a, interface: eth1, mtu: 1280, addresses: ["2001:db8::1/64"]}`),
		ports("{name: a, interface: eth1}") + "conntrack: {max_connections: 1024, timeouts: {udp: 1s, tcp_none: 744h}, conn_reuse_mode: 3}\ngrace: 0s\nlimits: {answers: 0/s}",
		ports("{name: a, interface: eth1}") + "conntrack: {max_connections: 67108864, conn_reuse_mode: 0}\ngrace: 10m\nlimits: {answers: 1000000/s}",
		ports("{name: a, interface: eth1}") + "vxlan: {port: 65535, segments: [{vni: 1, vtep: 192.0.2.1}, {vni: 16777215, vtep: 192.0.2.1}]}",
		ports("{name: wan, interface: eth1, mtu: 1550}, {name: tenant, interface: eth2, mtu: 1500}") + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, access: [{port: tenant}]}]}",
		ports("{name: wan, interface: eth1}, {name: tenant, interface: eth2, mtu: 1500}") + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, access: [{port: tenant}]}]}",
		services("{vip: 198.18.9.9, port: 80, allow: [198.18.0.0/16], deny: [198.18.3.0/24], conn_reuse_mode: 0, sloppy_tcp: true, backends: [{address: 198.18.1.10}, {address: 198.18.1.11, backup: true}]}"),
		services("{vip: 198.18.9.9, port: 53, protocol: udp, sloppy_tcp: false, backends: [{address: 198.18.1.10}]}"),
		segments("keep_tags: true, access: [{port: wan, vlan: 6}, {port: wan, vlan: 7}]"),
		segments("max_entries: 262144") + "services: [{vip: 192.0.2.1, port: 4788, protocol: udp, backends: [{address: 198.18.1.10}]}, {vip: 192.0.2.1, port: 4789, backends: [{address: 198.18.1.10}]}, {vip: 192.0.2.1, port: 0, protocol: udp, persistence: {}, backends: [{address: 198.18.1.10}]}]",
		gateway("{addresses: [172.16.1.0/31, 172.16.2.1/32, 172.16.3.254/23], mac: 02:00:00:00:50:01}"),
		segments("port: 1, ttl: 1, dscp: 0, flood_limit: 0/s, mss_clamp: false"), segments("port: 65535, ttl: 255, dscp: 63, flood_limit: 1000000/s"),
		services("{vip: 198.18.9.9, port: 1-65535, backends: [{address: 198.18.1.10, weight: 65535, lower_threshold: 2147483647, upper_threshold: 2147483647}, {address: 198.18.1.11, weight: 0}]}"),
		"version: 1\nengine: {workers: 256}\n" + strings.TrimPrefix(ports("{name: a, interface: eth1}"), "version: 1\n"),
	} {
		if _, diags := Parse("f", []byte(text)); len(diags) > 0 {
			t.Errorf("%s\n%v", text, Errors(diags))
		}
	}
}

func ports(list string) string { return "version: 1\nports: [" + list + "]\n" }

func segments(keys string) string {
	return ports("{name: wan, interface: eth1}") + "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, " + keys + "}]}\n"
}

func services(list string) string {
	return ports("{name: wan, interface: eth1}") + "services: [" + list + "]\n"
}

// gateway is a configuration with segment 5001, which has that gateway, and with other segments.
func gateway(text string, others ...string) string {
	all := append([]string{"{vni: 5001, vtep: 192.0.2.1, gateway: " + text + "}"}, others...)
	return ports("{name: wan, interface: eth1}") + "vxlan: {segments: [" + strings.Join(all, ", ") + "]}\n"
}

// tenancy is a configuration with services where segments 5001 and 5003 have a gateway and 5002 has none.
func tenancy(list string) string {
	return gateway("{address: 172.16.1.1/24, mac: 02:00:00:00:50:01}", "{vni: 5002, vtep: 192.0.2.1}",
		"{vni: 5003, vtep: 192.0.2.1, gateway: {address: 172.16.3.1/24, mac: 02:00:00:00:50:03}}") + "services: [" + list + "]\n"
}

// TestOverlapAgreesWithTwin compares which services are refused with a twin that marks every port in a table.
func TestOverlapAgreesWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type owner struct {
			vip, protocol string
			port          int
		}
		owners := map[owner]bool{}
		want := map[int]bool{}
		var list []string
		for i := range rapid.IntRange(1, 12).Draw(t, "services") {
			vip := rapid.SampledFrom([]string{"198.18.9.1", "198.18.9.2"}).Draw(t, "vip")
			protocol := rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol")
			from := rapid.IntRange(0, 40).Draw(t, "from")
			to := from
			if from > 0 && rapid.Bool().Draw(t, "range") {
				to = rapid.IntRange(from, 40).Draw(t, "to")
			}
			list = append(list, fmt.Sprintf("{name: s%d, vip: %s, protocol: %s, port: %d-%[4]d, persistence: {}, backends: [{address: 198.18.1.10}]}", i, vip, protocol, from))
			if to == from {
				list[i] = strings.Replace(list[i], fmt.Sprintf("port: %d-%d", from, from), fmt.Sprintf("port: %d", from), 1)
			} else {
				list[i] = strings.Replace(list[i], fmt.Sprintf("port: %d-%d", from, from), fmt.Sprintf("port: %d-%d", from, to), 1)
			}
			for port := from; port <= to; port++ { // port 0 is itself alone here, which is what it collides with
				want[i] = want[i] || owners[owner{vip, protocol, port}]
			}
			if !want[i] {
				for port := from; port <= to; port++ {
					owners[owner{vip, protocol, port}] = true
				}
			}
		}
		_, diags := Parse("f", []byte(services(strings.Join(list, ",\n"))))
		got := map[int]bool{}
		for _, d := range diags {
			var i int
			if _, err := fmt.Sscanf(d.Path, "services[%d].vip", &i); err != nil || got[i] {
				t.Fatalf("unexpected: %v", d)
			}
			got[i] = true
		}
		for i := range list {
			if got[i] != want[i] {
				t.Errorf("services[%d]: refused %t, want %t\n%s", i, got[i], want[i], strings.Join(list, "\n"))
			}
		}
	})
}

// TestMostSegments has as many segments as there can be, and one more.
func TestMostSegments(t *testing.T) {
	var list strings.Builder
	for vni := range MaxSegments {
		fmt.Fprintf(&list, "  - {vni: %d, vtep: 192.0.2.1}\n", vni+1)
	}
	head := ports("{name: wan, interface: eth1}") + "vxlan:\n  segments:\n"
	if _, diags := Parse("f", []byte(head+list.String())); len(diags) > 0 {
		t.Errorf("%d: %v", MaxSegments, Errors(diags))
	}
	_, diags := Parse("f", []byte(head+list.String()+"  - {vni: 5000, vtep: 192.0.2.1}\n"))
	if len(diags) != 1 || !strings.Contains(fmt.Sprint(diags[0]), "vxlan.segments: there can be 4096 segments, not 4097") {
		t.Errorf("one more: %v", Errors(diags))
	}
}

// TestAccessWarnings: an address is lost on a port that is a segment's as a whole, but not by a VLAN of it, and not on the device of a port that is a VLAN.
func TestAccessWarnings(t *testing.T) {
	c, diags := Parse("f", []byte(ports("{name: a, interface: eth1}, {name: b, interface: eth2}, {name: c, interface: eth3, vlan: 7}, {name: d, interface: eth4}")+
		"vxlan: {segments: [{vni: 1, vtep: 192.0.2.1, access: [{port: a}, {port: b, vlan: 6}, {port: c}, {port: d}]}]}"))
	if HasErrors(diags) {
		t.Fatal(Errors(diags))
	}
	host := netip.MustParsePrefix("198.18.0.1/24")
	links := []Link{{Addresses: []netip.Prefix{host}}, {Addresses: []netip.Prefix{host}}, {Addresses: []netip.Prefix{host}},
		{Addresses: []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}}}
	got := c.AccessWarnings(links)
	if len(got) != 1 || got[0].Path != "vxlan.segments[0].access[0].port" || got[0].Severity != Warning || !strings.Contains(got[0].Message, "198.18.0.1/24 on a") {
		t.Errorf("got %v", got)
	}
}
