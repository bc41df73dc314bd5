package control

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weir/dataplane"
	"weir/dataplane/sched"
	"weir/vxlan"
)

// What is kept beside the table is less than it: to lose the last second of it costs a round robin its turn, or a flood to find a station again. So
// it is written down now and then, where it has changed.
const (
	positionsFile = "schedulers.json"
	stationsFile  = "stations.json"

	keepEvery = time.Second // at most so often
	keepRare  = 10 * time.Second
	keepMany  = 4096 // entries from which on it is done rarely: ten thousand take some ten milliseconds
)

// position is where a service's scheduler stands.
type position struct {
	Protocol uint8        `json:"protocol"`
	VIP      netip.Prefix `json:"vip"`
	Port     [2]uint16    `json:"port"`
	VNI      uint32       `json:"vni,omitempty"`
	Backup   bool         `json:"backup,omitempty"` // of the backends that serve when no other does
	Last     uint32       `json:"last"`             // ID of the backend chosen last
	Level    int          `json:"level,omitempty"`
}

// keptStation is a station that was learned, by what its place is rather than by its number.
type keptStation struct {
	VNI  uint32       `json:"vni"`
	MAC  uint64       `json:"mac"`
	Peer netip.Addr   `json:"peer,omitzero"`
	Port string       `json:"port,omitempty"`
	VLAN uint16       `json:"vlan,omitempty"`
	Seen vxlan.Second `json:"seen"`
}

// side is a file beside the table.
type side struct {
	name string
	last []byte    // that was written
	at   time.Time // when it was looked at last
	size int       // entries
}

// sideContent is a side's content. It is of use with the table that it names.
type sideContent struct {
	Version int             `json:"version"`
	Table   string          `json:"table"`
	Entries json.RawMessage `json:"entries"`
}

// keep replaces f by n entries if they are others than those that it has.
func (s *state) keep(f *side, now time.Time, n int, entries any) {
	f.at, f.size = now, n
	if n == 0 && f.last == nil && s.restored[f.name] == nil {
		return // there never was any
	}
	b, err := json.Marshal(entries)
	if err == nil && string(b) == string(f.last) {
		return
	}
	if err == nil {
		f.last = b
		b, err = json.Marshal(sideContent{legendVersion, s.id(), b})
	}
	if err == nil {
		err = replace(filepath.Join(s.dir, f.name), b)
	}
	if err != nil {
		s.log.Warn("what the next weir is to know is not written down", "file", f.name, "err", err)
	}
}

// hurry makes the next keep look at all files.
func (s *state) hurry() { s.positions.at, s.stations.at = time.Time{}, time.Time{} }

// sides reads the entries of all files beside the table of an ID, by their names.
func (s *state) sides(table string) map[string][]byte {
	all := map[string][]byte{}
	for _, name := range []string{positionsFile, stationsFile} {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var x sideContent
		if err == nil {
			err = json.Unmarshal(b, &x)
		}
		if err != nil {
			s.log.Warn("what the weir before this one noted is of no use", "file", name, "err", err)
		} else if x.Version == legendVersion && x.Table == table {
			all[name] = x.Entries
		}
	}
	return all
}

// replace writes a file as one act: it is there as before, or as it shall be.
func replace(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	// Made anew: the directory may be another user's, of a weir that ran as him, and a link of his there must not lead root to a file that is not his.
	_ = os.Remove(name + ".new")
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// due reports whether it is time to look if the file has changed.
func (f *side) due(now time.Time) bool {
	wait := keepEvery
	if f.size > keepMany {
		wait = keepRare
	}
	return now.Sub(f.at) >= wait
}

// keep writes down where schedulers stand and which stations are known, if it is time to. c.mu is held.
func (c *core) keep(now time.Time) {
	if c.state == nil || c.state.file == nil {
		return
	}
	if f := &c.state.positions; f.due(now) {
		x := c.reg.positions()
		c.state.keep(f, now, len(x), x)
	}
	if f := &c.state.stations; f.due(now) {
		x := c.reg.overlay.learned(c.cfg)
		c.state.keep(f, now, len(x), x)
	}
}

// resume puts schedulers and stations back to where the process before had them. c.mu is held.
func (c *core) resume() {
	if c.state == nil || c.state.restored == nil {
		return
	}
	var positions []position
	var stations []keptStation
	for name, x := range map[string]any{positionsFile: &positions, stationsFile: &stations} {
		if b := c.state.restored[name]; b != nil {
			if err := json.Unmarshal(b, x); err != nil {
				c.state.log.Warn("what the weir before this one noted is of no use", "file", name, "err", err)
			}
		}
	}
	c.reg.resume(positions)
	if n := c.reg.overlay.resume(c.cfg, stations, vxlan.SecondOf(dataplane.Monotonic())); n > 0 {
		c.state.log.Info("stations are known from the weir before this one", "stations", n)
	}
}

// positions are those of all schedulers that have chosen.
func (r *registry) positions() (all []position) {
	for key, s := range r.services {
		for _, p := range []*planned{&s.real, &s.backup} {
			if p.plan == nil {
				continue
			}
			if at := p.plan.Position(p.state); at.Last >= 0 {
				all = append(all, position{key.protocol, key.vip, [2]uint16{key.port, key.portTo}, key.vni, p == &s.backup, at.LastID, at.Level})
			}
		}
	}
	slices.SortFunc(all, func(a, b position) int { // a map's order is none
		for _, c := range []int{a.VIP.Addr().Compare(b.VIP.Addr()), a.VIP.Bits() - b.VIP.Bits(), int(a.Protocol) - int(b.Protocol), int(a.Port[0]) - int(b.Port[0]), int(a.VNI) - int(b.VNI)} {
			if c != 0 {
				return c
			}
		}
		return map[bool]int{a.Backup: 1, b.Backup: -1}[true]
	})
	return all
}

// resume gives schedulers positions that the process before noted. IDs are its own, which restore has kept.
func (r *registry) resume(all []position) {
	for _, x := range all {
		s := r.services[serviceKey{x.Protocol, x.VIP, x.Port[0], x.Port[1], x.VNI}]
		if s == nil {
			continue
		}
		p := &s.real
		if x.Backup {
			p = &s.backup
		}
		if p.plan != nil {
			p.plan.Resume(p.state, sched.Position{LastID: x.Last, Level: x.Level})
		}
	}
}
