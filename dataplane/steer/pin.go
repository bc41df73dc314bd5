package steer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where pins lie below the caller's directory. A bpffs knows no dots in names.
//
//	v1/...        maps and program of layout 1
//	v1_new/...    such that replace them, until the start is through
//	xdp_3, tc_4   links, by ifindex
const (
	stagingSuffix = "_new"
	xdpPinPrefix  = "xdp_"
	tcPinPrefix   = "tc_"
)

// pins is the directory on a bpffs, if there is one.
type pins struct {
	dir  string // "": nothing is pinned
	why  string // nothing is pinned
	maps string // directory of the maps in use, below dir
}

// openPins makes the directory. That there is no bpffs is no error: mounting one is the operator's.
func openPins(path string) (pins, error) {
	if path == "" {
		return pins{why: "no path was given"}, nil
	}
	there := filepath.Clean(path)
	var fs unix.Statfs_t
	for {
		err := unix.Statfs(there, &fs)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || there == filepath.Dir(there) {
			return pins{}, fmt.Errorf("statfs %s: %w", there, err)
		}
		there = filepath.Dir(there)
	}
	if uint32(fs.Type) != unix.BPF_FS_MAGIC {
		return pins{why: fmt.Sprintf("%s is not on a bpffs (mount -t bpf bpf /sys/fs/bpf)", there)}, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return pins{}, err
	}
	return pins{dir: path, maps: filepath.Join(path, layoutDir())}, nil
}

func layoutDir() string { return fmt.Sprintf("v%d", layoutVersion) }

// adoptMaps opens the maps that a predecessor of this layout pinned. If there are none, or they do not fit, it returns no maps and
// turns to the staging directory if the name is taken.
func (p *pins) adoptMaps(o Options, need image) (mapSet, error) {
	if p.dir == "" {
		return mapSet{}, nil
	}
	// A predecessor that did not get through its start left this; its maps go on as long as a link uses them.
	if err := removePins(p.maps + stagingSuffix); err != nil {
		return mapSet{}, err
	}
	var m mapSet
	s := specs(o, need)
	sizes := map[string]int{}
	for id, t := range tables {
		sizes[t.name] = len(need[id])
	}
	for _, n := range m.named() {
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(p.maps, n.name), nil)
		if err == nil {
			*n.m = pinned
			entries, table := sizes[n.name]
			if !table {
				entries = -1
			}
			if fits(pinned, s[n.name], entries) {
				continue
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			m.close()
			return mapSet{}, fmt.Errorf("open pinned map %s: %w", filepath.Join(p.maps, n.name), err)
		}
		m.close()
		p.stage()
		return mapSet{}, nil
	}
	return m, nil
}

// stage turns to the staging directory if the name of the maps is taken.
func (p *pins) stage() {
	if _, err := os.Stat(p.maps); err == nil {
		p.maps += stagingSuffix
	}
}

func (p *pins) pinMaps(m *mapSet) error {
	if p.dir == "" {
		return nil
	}
	if err := os.MkdirAll(p.maps, 0o700); err != nil {
		return err
	}
	for _, n := range m.named() {
		if err := (*n.m).Pin(filepath.Join(p.maps, n.name)); err != nil {
			return fmt.Errorf("pin map %s: %w", n.name, err)
		}
	}
	return nil
}

// pinProgram pins the XDP program in place of a predecessor's, for bpftool and its like to find.
func (p *pins) pinProgram(prog *ebpf.Program) error {
	if p.dir == "" {
		return nil
	}
	at := filepath.Join(p.maps, "program")
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := prog.Pin(at); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}

// settleMaps removes the maps of other layouts and gives those in use their name.
func (p *pins) settleMaps() ([]string, error) {
	if p.dir == "" {
		return nil, nil
	}
	var removed []string
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		at := filepath.Join(p.dir, e.Name())
		if e.IsDir() && at != p.maps && strings.HasPrefix(e.Name(), "v") {
			if err := removePins(at); err != nil {
				return removed, err
			}
			removed = append(removed, at)
		}
	}
	if name := filepath.Join(p.dir, layoutDir()); p.maps != name {
		if err := os.Rename(p.maps, name); err != nil {
			return removed, err
		}
		p.maps = name
	}
	return removed, nil
}

// removePins removes a directory of pins. os.RemoveAll is not used: on a path that is no bpffs it would remove anything.
func removePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}
