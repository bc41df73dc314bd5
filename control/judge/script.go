package judge

import (
	"fmt"
	"strings"
)

// Script is a scenario before a kernel has played it: what is to happen, not yet in bytes. Servers answer from wherever the kernel sent the
// client, so their packets are known only while it plays. A script without some of its operations is a script still.
type Script struct {
	Name     string         `json:"name"`
	Options  map[string]int `json:"options,omitempty"`
	Timeouts *Timeouts      `json:"timeouts,omitempty"`
	MTU      map[string]int `json:"mtu,omitempty"`
	Services []Service      `json:"services"`
	Flows    []Flow         `json:"flows"`
	Ops      []Op           `json:"ops"`
}

// Flow is a client's port towards a service.
type Flow struct {
	VIP      string `json:"vip"`
	VPort    int    `json:"vport"`
	Protocol string `json:"protocol"`
	Client   string `json:"client"`
	Port     int    `json:"port"`
}

// What an operation does.
const (
	DoPacket = "packet" // Side sends a packet of Flow
	DoError  = "error"  // a router on Side complains of the flow's latest packet that it got
	DoEcho   = "echo"   // the client pings the VIP
	DoEdit   = "edit"
	DoWait   = "wait" // until the next instant of the grid that is Seconds away
)

// Op is one operation. Those that make no sense when their turn comes (an answer of a server that was never asked) are left out.
type Op struct {
	Do   string `json:"do"`
	Flow int    `json:"flow,omitempty"`
	Side int    `json:"side,omitempty"`

	Flags int    `json:"flags,omitempty"` // of TCP; the type of SCTP's chunk
	Data  int    `json:"data,omitempty"`  // bytes of payload
	TTL   *int   `json:"ttl,omitempty"`   // 64
	TOS   int    `json:"tos,omitempty"`
	DF    bool   `json:"df,omitempty"`
	Spoil string `json:"spoil,omitempty"`
	Cut   []int  `json:"cut,omitempty"` // into fragments at these offsets
	// Reverse sends the last fragment first.
	Reverse bool `json:"reverse,omitempty"`
	Alive   bool `json:"alive,omitempty"` // only on a connection that was opened, and no time passed since: see docs/ipvs.md

	Type   int  `json:"type,omitempty"` // of an ICMP error
	Code   int  `json:"code,omitempty"`
	MTU    int  `json:"mtu,omitempty"`
	Quote  int  `json:"quote,omitempty"`  // bytes quoted behind the IP header; 0 for all
	Router bool `json:"router,omitempty"` // sent by a router, not by whom the packet was for

	Edit    *Edit `json:"edit,omitempty"`
	Seconds int   `json:"seconds,omitempty"`
}

// String says the operation for a reader.
func (o *Op) String() string {
	var s strings.Builder
	switch o.Do {
	case DoPacket:
		fmt.Fprintf(&s, "%s: flow %d flags %#02x data %d", sides[o.Side], o.Flow, o.Flags, o.Data)
	case DoError:
		fmt.Fprintf(&s, "%s: flow %d ICMP error %d/%d mtu %d quoting %d", sides[o.Side], o.Flow, o.Type, o.Code, o.MTU, o.Quote)
	case DoEcho:
		fmt.Fprintf(&s, "%s: flow %d echo", sides[o.Side], o.Flow)
	case DoWait:
		return fmt.Sprintf("wait %d s", o.Seconds)
	case DoEdit:
		return "edit " + o.Edit.String()
	}
	if o.TTL != nil {
		fmt.Fprintf(&s, " ttl %d", *o.TTL)
	}
	if o.Spoil != "" {
		fmt.Fprintf(&s, " spoilt: %s", o.Spoil)
	}
	if len(o.Cut) > 0 {
		fmt.Fprintf(&s, " cut at %v reverse %t", o.Cut, o.Reverse)
	}
	return s.String()
}

// String says the edit as ipvsadm would be told.
func (e *Edit) String() string {
	switch {
	case e.AddService != nil:
		return "-A " + e.AddService.String()
	case e.RemoveService != nil:
		return "-D " + e.RemoveService.String()
	case e.EditService != nil:
		return "-E " + e.EditService.String()
	case e.AddBackendFirst != nil:
		return "-a " + e.Service.String() + " " + e.AddBackendFirst.String()
	case e.RemoveBackend != nil:
		return "-d " + e.Service.String() + " " + e.RemoveBackend.String()
	}
	return "-e " + e.Service.String() + " " + e.EditBackend.String()
}

func (s *Service) String() string {
	text := fmt.Sprintf("%s [%s]:%d", s.Protocol, s.VIP, s.Port)
	if s.Scheduler != "" {
		text += " -s " + s.Scheduler
	}
	if len(s.Flags) > 0 {
		text += " -b " + strings.Join(s.Flags, ",")
	}
	if s.OnePacket {
		text += " -o"
	}
	if p := s.Persistence; p != nil {
		text += fmt.Sprintf(" -p %d -M %d", p.TimeoutS, p.Prefix)
	}
	return text
}

func (b *Backend) String() string {
	text := fmt.Sprintf("-r [%s]:%d -w %d", b.Address, b.Port, b.Weight)
	if b.Forward != "" {
		text += " " + b.Forward
	}
	if b.TunnelPort != 0 {
		text += fmt.Sprintf(" --tun-port %d", b.TunnelPort)
	}
	if b.Upper != 0 || b.Lower != 0 {
		text += fmt.Sprintf(" -x %d -y %d", b.Upper, b.Lower)
	}
	return text
}

// String lists the script for a reader.
func (s *Script) String() string {
	var t strings.Builder
	fmt.Fprintf(&t, "%s: options %v mtu %v", s.Name, s.Options, s.MTU)
	if s.Timeouts != nil {
		fmt.Fprintf(&t, " timeouts %d %d %d", s.Timeouts.TCP, s.Timeouts.TCPFin, s.Timeouts.UDP)
	}
	for i := range s.Services {
		v := &s.Services[i]
		fmt.Fprintf(&t, "\n  -A %v", v)
		for j := range v.Backends {
			fmt.Fprintf(&t, "\n     %v", &v.Backends[j])
		}
	}
	used := map[int]bool{}
	for i := range s.Ops {
		used[s.Ops[i].Flow] = true
	}
	for i, f := range s.Flows {
		if used[i] {
			fmt.Fprintf(&t, "\n  flow %d: %s [%s]:%d > [%s]:%d", i, f.Protocol, f.Client, f.Port, f.VIP, f.VPort)
		}
	}
	for i := range s.Ops {
		fmt.Fprintf(&t, "\n  %2d %v", i, &s.Ops[i])
	}
	return t.String()
}
