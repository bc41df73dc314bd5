// Package judge holds weir against the kernel's IPVS.
//
// A Recording is what a balancer did: packets that went in, and for each all that came out, between edits and waits. The kernel makes them:
//
//	Generate   seed -> Script           services, and what clients, servers and routers do, without bytes
//	Record     Scripts -> Recordings    inside a user-mode-linux kernel, where Agent turns scripts into packets
//	Play       Recording -> Difference  the same packets into a balancer of ours, and what came out compared
//	Minimize   Script -> Script         the shortest that still differs
//
// The format of recordings is testdata/golden/README.md's; Format says what is added to it here.
package judge

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Recording is one file of golden data.
type Recording struct {
	Name     string         `json:"name"`
	Source   string         `json:"source,omitempty"`
	Options  map[string]int `json:"options"`            // sysctls below net.ipv4.vs that differ from the defaults
	Timeouts *Timeouts      `json:"timeouts,omitempty"` // shortened ones; an addition to the format
	MTU      map[string]int `json:"mtu"`                // by side; 1500 where absent
	Services []Service      `json:"services"`
	Ops      []int          `json:"ops,omitempty"` // of the script that the steps come from; an addition to the format
	Steps    []Step         `json:"steps"`
}

// Timeouts are what `ipvsadm --set` sets, in seconds: TCP established, TCP after a FIN, UDP. 0 leaves the default.
type Timeouts struct {
	TCP    int `json:"tcp"`
	TCPFin int `json:"tcpfin"`
	UDP    int `json:"udp"`
}

// Service is one virtual service, its backends in the kernel's list order.
type Service struct {
	VIP         string       `json:"vip"`
	Port        int          `json:"port"`
	Protocol    string       `json:"protocol"`
	Flags       []string     `json:"flags,omitempty"`
	Scheduler   string       `json:"scheduler,omitempty"`
	OnePacket   bool         `json:"one_packet,omitempty"`
	Persistence *Persistence `json:"persistence,omitempty"`
	Backends    []Backend    `json:"backends,omitempty"`
}

// Persistence sends a client to the server it had; Prefix is how much of its address counts, 0 for all of it.
type Persistence struct {
	TimeoutS int `json:"timeout_s"`
	Prefix   int `json:"prefix"`
}

// Backend is one real server of a service.
type Backend struct {
	Address    string `json:"address"`
	Port       int    `json:"port"`
	Weight     int    `json:"weight"`
	Forward    string `json:"forward,omitempty"` // nat dr ipip gue gre
	Upper      int    `json:"upper_threshold,omitempty"`
	Lower      int    `json:"lower_threshold,omitempty"`
	TunnelPort int    `json:"tunnel_port,omitempty"`
}

// Step is a packet and what came of it, an edit, or time that passes.
type Step struct {
	Send   string   `json:"send,omitempty"` // client or server
	Packet string   `json:"packet,omitempty"`
	Expect []Packet `json:"expect,omitempty"`
	Edit   *Edit    `json:"edit,omitempty"`
	WaitS  float64  `json:"wait_s,omitempty"`
}

// Packet is one that came out, in hex from its IP header on.
type Packet struct {
	Side   string `json:"side"`
	Packet string `json:"packet"`
	Exact  bool   `json:"exact"`
	// MAC is whom the frame went to, where servers can be told apart only so (direct routing); an addition to the format.
	MAC string `json:"mac,omitempty"`
}

// Edit changes the configuration. Service names the service of an edit of its backends.
type Edit struct {
	AddService      *Service `json:"add_service,omitempty"`
	RemoveService   *Service `json:"remove_service,omitempty"`
	EditService     *Service `json:"edit_service,omitempty"` // all but its backends; an addition to the format
	AddBackendFirst *Backend `json:"add_backend_first,omitempty"`
	RemoveBackend   *Backend `json:"remove_backend,omitempty"`
	EditBackend     *Backend `json:"edit_backend,omitempty"`
	Service         *Service `json:"service,omitempty"`
}

func unhex(s string) ([]byte, error) { return hex.DecodeString(s) }

// same is the identity of a service.
func (s *Service) same(o *Service) bool {
	return s.VIP == o.VIP && s.Port == o.Port && s.Protocol == o.Protocol
}

func (s *Service) find(b *Backend) int {
	for i := range s.Backends {
		if s.Backends[i].Address == b.Address && s.Backends[i].Port == b.Port {
			return i
		}
	}
	return -1
}

// apply does the edit to a list of services; the slices of old lists are not written to.
func (e *Edit) apply(services []Service) ([]Service, error) {
	services = append([]Service{}, services...)
	if e.AddService != nil {
		return append(services, *e.AddService), nil
	}
	target := e.Service
	for _, s := range []*Service{e.RemoveService, e.EditService} {
		if s != nil {
			target = s
		}
	}
	if target == nil {
		return nil, fmt.Errorf("an edit without a service")
	}
	for i := range services {
		s := &services[i]
		if !s.same(target) {
			continue
		}
		switch {
		case e.RemoveService != nil:
			return append(services[:i], services[i+1:]...), nil
		case e.EditService != nil:
			backends := s.Backends
			*s = *e.EditService
			s.Backends = backends
			return services, nil
		case e.AddBackendFirst != nil:
			s.Backends = append([]Backend{*e.AddBackendFirst}, s.Backends...)
			return services, nil
		}
		edited, list := e.EditBackend, []Backend{}
		if edited == nil {
			edited = e.RemoveBackend
		}
		at := s.find(edited)
		if at < 0 {
			return nil, fmt.Errorf("an edit of backend %s:%d, which %s:%d does not have", edited.Address, edited.Port, s.VIP, s.Port)
		}
		list = append(list, s.Backends...)
		if e.EditBackend != nil {
			list[at] = *edited
		} else {
			list = append(list[:at], list[at+1:]...)
		}
		s.Backends = list
		return services, nil
	}
	return nil, fmt.Errorf("an edit of %s %s:%d, which is no service", target.Protocol, target.VIP, target.Port)
}

// Load reads every recording below dir.
func Load(dir string) ([]*Recording, error) {
	var all []*Recording
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json") {
			return err
		}
		r, err := read(path)
		if err == nil {
			all = append(all, r)
		}
		return err
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no recordings in %s", dir)
	}
	return all, err
}

func read(path string) (*Recording, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Recording)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// write makes a file of one recording, a step a line.
func (r *Recording) write(path string) error {
	b, err := r.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// Format is the recording as a file, a step a line.
func (r *Recording) Format() ([]byte, error) {
	head := *r
	head.Steps = []Step{}
	b, err := json.MarshalIndent(&head, "", " ")
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutSuffix(string(b), "[]\n}")
	if !ok {
		return nil, fmt.Errorf("a recording does not end in its steps")
	}
	var s strings.Builder
	s.WriteString(text + "[")
	for i := range r.Steps {
		line, err := json.Marshal(&r.Steps[i])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString("\n  " + string(line))
	}
	s.WriteString("\n ]\n}\n")
	return []byte(s.String()), nil
}
