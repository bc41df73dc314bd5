package control

import (
	"bytes"
	"net/netip"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/packet"
)

// What the API shows, as JSON. Names are the contract's: more may be added, none changed.

// Stats is all counters at one moment.
type Stats struct {
	Generation uint64             `json:"generation"`
	Verdicts   dataplane.Verdicts `json:"verdicts"`
	Sent       uint64             `json:"sent"`
	Passed     uint64             `json:"passed"` // left to the kernel by steering
	Drops      map[string]uint64  `json:"drops"`
	Steering   map[string]uint64  `json:"steering,omitempty"` // frames by the rule of the XDP program that decided
	Ports      []PortView         `json:"ports"`
	Services   []ServiceView      `json:"services"`
	VXLAN      []SegmentView      `json:"vxlan,omitempty"`
}

// PortView is one port.
type PortView struct {
	Name      string `json:"name"`
	Interface string `json:"interface,omitempty"`
	Driver    string `json:"driver"`
	Mode      string `json:"mode"`  // what the driver got: zerocopy, native, generic, or the driver's name
	Setup     string `json:"setup"` // who made the sockets
	Up        bool   `json:"up"`
	Queues    int    `json:"queues"`
	MAC       string `json:"mac"`
	MTU       int    `json:"mtu"`
	VLAN      uint16 `json:"vlan"`
	Received  uint64 `json:"received"`
	Sent      uint64 `json:"sent"`
	SendLost  uint64 `json:"send_lost"`
	RxLost    uint64 `json:"rx_lost"`
	Invalid   uint64 `json:"invalid"`   // descriptors of ours that the kernel refused: a bug
	SentLive  uint64 `json:"sent_live"` // frames sent as live frames, of those sent
	Wakeups   uint64 `json:"wakeups"`   // system calls made to move frames
}

// ServiceView is one service with its backends in list order.
type ServiceView struct {
	Name        string           `json:"name"`
	VIP         VIP              `json:"vip"`
	VNI         uint32           `json:"vni,omitempty"` // of the segment that the VIP is in
	Port        uint16           `json:"port"`
	PortTo      uint16           `json:"port_to,omitempty"`
	Protocol    string           `json:"protocol"`
	Scheduler   string           `json:"scheduler"`
	Flags       []string         `json:"flags,omitempty"`
	OnePacket   bool             `json:"one_packet,omitempty"`
	Persistence *PersistenceView `json:"persistence,omitempty"`
	dataplane.Traffic
	Zeroed   *time.Time    `json:"zeroed,omitempty"` // since when the counters count, if not since the start
	Backends []BackendView `json:"backends"`
}

// VIP is the address of a service, or the network whose addresses all are. As text it is written as in the configuration.
type VIP struct{ netip.Prefix }

// String is 198.18.9.9, or 203.0.113.0/28.
func (v VIP) String() string { return config.VIPText(v.Prefix) }

// MarshalText makes JSON of String.
func (v VIP) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what String writes.
func (v *VIP) UnmarshalText(b []byte) (err error) {
	if bytes.IndexByte(b, '/') >= 0 {
		return v.Prefix.UnmarshalText(b)
	}
	var a netip.Addr
	err = a.UnmarshalText(b)
	v.Prefix = netip.PrefixFrom(a, a.BitLen())
	return err
}

// PersistenceView is how long a client stays on its backend.
type PersistenceView struct {
	TimeoutS int `json:"timeout_s"`
	Prefix   int `json:"prefix"` // bits of a client's address that count, in the service's family
}

// BackendView is one backend.
type BackendView struct {
	Name       string     `json:"name"`
	Address    netip.Addr `json:"address"`
	Port       uint16     `json:"port"`
	VNI        uint32     `json:"vni,omitempty"` // of the segment that the server is in
	Forward    string     `json:"forward"`
	Weight     int32      `json:"weight"`              // 0 while it is down or drains
	Configured int32      `json:"configured_weight"`   // that it has otherwise
	State      string     `json:"state"`               // up, slow_start, drain, drained or down
	Share      int        `json:"share,omitempty"`     // in slow start: percent of its weight that it has
	Why        string     `json:"why,omitempty"`       // it is in this state
	SinceS     int        `json:"since_s,omitempty"`   // seconds that it has been
	Left       int        `json:"left,omitempty"`      // in drain: connections that are still there
	EndsInS    int        `json:"ends_in_s,omitempty"` // in drain: seconds until those end
	Check      *CheckView `json:"check,omitempty"`
	Active     int        `json:"active"`
	Inactive   int        `json:"inactive"`
	Persistent int        `json:"persistent"`
	Upper      uint32     `json:"upper_threshold,omitempty"`
	Lower      uint32     `json:"lower_threshold,omitempty"`
	TunnelPort uint16     `json:"tunnel_port,omitempty"`
	Backup     bool       `json:"backup,omitempty"`
	dataplane.Traffic
}

// CheckView is what a backend's check says.
type CheckView struct {
	Type    string  `json:"type"`
	Target  string  `json:"target"`
	Up      bool    `json:"up"`
	Why     string  `json:"why,omitempty"` // the latest failure; empty after a success
	Run     int     `json:"run"`           // answers in a row like the latest one
	TookMS  float64 `json:"took_ms"`
	Answers uint64  `json:"answers"`
	Failed  uint64  `json:"failed"`
}

// ConnView is one connection.
type ConnView struct {
	Protocol   string         `json:"protocol"`
	Client     netip.AddrPort `json:"client"`
	Virtual    netip.AddrPort `json:"virtual"`
	Backend    netip.AddrPort `json:"backend"`
	Local      netip.AddrPort `json:"local"` // the source that the backend sees
	State      string         `json:"state"`
	ExpiresS   float64        `json:"expires_s"`
	InPackets  uint64         `json:"in_packets"`
	OutPackets uint64         `json:"out_packets"`
	VNI        uint32         `json:"vni,omitempty"`         // of the segment that the client is in
	BackendVNI uint32         `json:"backend_vni,omitempty"` // and the server
	Service    string         `json:"service,omitempty"`     // name
}

// WorkerView is one worker.
type WorkerView struct {
	Worker   int    `json:"worker"`
	CPU      int    `json:"cpu"` // -1: not pinned
	Wait     string `json:"wait"`
	Received uint64 `json:"received"`
	Vectors  uint64 `json:"vectors"` // non-empty ones
	Rounds   uint64 `json:"rounds"`
	Sleeps   uint64 `json:"sleeps"`
	Held     uint64 `json:"held"`
	Chunks   int    `json:"chunks"`
	Pages    string `json:"huge_pages"` // of the frame memory: hugetlb, transparent or none
	// CPUSeconds is the processor time that the worker has used, spinning included.
	CPUSeconds float64 `json:"cpu_seconds"`
	// BeatAgeS is how long ago the worker gave its last sign of life, in seconds.
	BeatAgeS float64 `json:"heartbeat_age_s"`
}

// Status is how the daemon is.
type Status struct {
	Version      string        `json:"version"`
	PID          int           `json:"pid"`
	Started      time.Time     `json:"started"`
	Config       string        `json:"config"`
	Generation   uint64        `json:"generation"`
	Loaded       time.Time     `json:"loaded"` // when this generation was published
	Connections  int           `json:"connections"`
	Capacity     int           `json:"capacity"`
	HalfOpen     int           `json:"half_open"` // connections whose handshake is not over
	HalfOpenCap  int           `json:"half_open_capacity"`
	Evicted      uint64        `json:"half_open_evicted"` // those that gave way to new ones, since the start
	Cookies      CookieView    `json:"cookies"`
	TableMemory  MemoryView    `json:"table_memory"`
	TableFile    string        `json:"table_file,omitempty"` // that the connections are in; none: they end with the process
	TakenOver    int           `json:"taken_over"`           // connections that the process before left
	Takeover     *TakeoverView `json:"takeover,omitempty"`   // if this process has taken over alive
	Health       HealthView    `json:"health"`
	LastReload   string        `json:"last_reload"` // what the last reload said
	LastReloadOK bool          `json:"last_reload_ok"`
	Changes      int           `json:"changes"` // in force that are not in the file as it was loaded last
	Warnings     []string      `json:"warnings,omitempty"`
}

// TakeoverView is how this process took over from one that was alive.
type TakeoverView struct {
	PID     int     `json:"pid"`     // of that one
	Version string  `json:"version"` // of it
	TookMS  float64 `json:"took_ms"` // from the first word to the last
	DarkUS  float64 `json:"dark_us"` // in which frames waited in the rings
}

// HealthView is how many backends are in which state, and how the checks get on.
type HealthView struct {
	Up        int    `json:"up"`
	SlowStart int    `json:"slow_start"`
	Drain     int    `json:"drain"`
	Drained   int    `json:"drained"`
	Down      int    `json:"down"`
	Left      int    `json:"left"` // connections to servers in drain
	Checks    int    `json:"checks"`
	Running   int    `json:"checks_running"`
	Late      uint64 `json:"checks_late"` // that began a second or more after they were due
}

// CookieView is what SYN cookies and challenges came to since the start.
type CookieView struct {
	Sent       uint64 `json:"sent"`
	Good       uint64 `json:"good"` // that came back in time
	Bad        uint64 `json:"bad"`  // ACKs of no connection that bring back none of ours, while some are out
	Challenges uint64 `json:"challenges"`
	Vouched    uint64 `json:"vouched"` // challenges that were met
}

// MemoryView is the memory of the connection table.
type MemoryView struct {
	Bytes     int    `json:"bytes"`      // mapped; what was never touched is not there
	HugeBytes int    `json:"huge_bytes"` // of them in pages of 2 MiB
	HugePages string `json:"huge_pages"` // how it came by these: hugetlb, collapsed or none
}

// connView shows a connection. The server of one that is not rewritten stands nowhere but in its backend.
func connView(i *conntrack.Info, snap *dataplane.Snapshot) ConnView {
	addr := func(a conntrack.Addr, port uint32) netip.AddrPort {
		return netip.AddrPortFrom(dataplane.NetipOf(a, i.Forward.V6), uint16(port))
	}
	v := ConnView{
		Protocol:   protocolName(uint8(i.Forward.Space)),
		Client:     addr(i.Forward.Src, i.Forward.Ports>>16),
		Virtual:    addr(i.Forward.Dst, i.Forward.Ports),
		Backend:    addr(i.ForwardTo.Dst, i.ForwardTo.Ports),
		Local:      addr(i.ForwardTo.Src, i.ForwardTo.Ports>>16),
		State:      i.State.String(),
		ExpiresS:   i.Expires.Seconds(),
		InPackets:  i.InPackets,
		OutPackets: i.OutPackets,
		VNI:        i.Forward.Space >> 8,
		BackendVNI: i.ForwardTo.Space >> 8,
	}
	if i.State == conntrack.Template {
		v.BackendVNI = 0
		if i.Forward.Space&dataplane.SegmentTemplate == 0 {
			v.VNI = 0 // a prefix's length stands there
		}
		v.Protocol = protocolName(uint8(conntrack.TemplateSpace(i.Forward.Space)) &^ dataplane.SegmentTemplate)
		v.Client, v.Local = netip.AddrPortFrom(v.Client.Addr(), 0), netip.AddrPortFrom(v.Client.Addr(), 0)
	}
	if i.OneWay && int(i.Backend) < len(snap.Backends) {
		b := &snap.Backends[i.Backend]
		v.BackendVNI = b.VNI
		v.Backend = netip.AddrPortFrom(dataplane.NetipOf(b.Addr, b.V6), b.Port)
		if b.Port == 0 {
			v.Backend = netip.AddrPortFrom(v.Backend.Addr(), v.Virtual.Port())
		}
	}
	return v
}

func protocolName(p uint8) string {
	switch p {
	case packet.ProtoTCP:
		return "tcp"
	case packet.ProtoUDP:
		return "udp"
	case packet.ProtoSCTP:
		return "sctp"
	}
	return "unknown"
}

func protocolNumber(name string) uint8 {
	switch name {
	case "tcp":
		return packet.ProtoTCP
	case "udp":
		return packet.ProtoUDP
	}
	return packet.ProtoSCTP
}
