package steer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Detach takes the device's programs away; from then on everything there is the kernel's.
func (p *Program) Detach(ifindex int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, h := range []hook{hookXDP, hookTC} {
		if l := p.links[linkKey{h, ifindex}]; l != nil {
			errs = append(errs, p.drop(linkKey{h, ifindex}, l))
		}
	}
	return errors.Join(errs...)
}

func (p *Program) drop(k linkKey, l link.Link) error {
	delete(p.links, k)
	err := l.Detach()
	if gone(err) {
		err = nil
	}
	if p.pins.dir != "" {
		if e := os.Remove(filepath.Join(p.pins.dir, k.pin())); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, l.Close())
}

// gone reports whether detaching failed because the device went first.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK) }

// Destroy is a clean stop: detach, remove every pin, close. The directory itself goes, too.
func (p *Program) Destroy() error {
	p.mu.Lock()
	var errs []error
	for k, l := range p.links {
		errs = append(errs, p.drop(k, l))
	}
	dir := p.pins.dir
	p.mu.Unlock()
	errs = append(errs, p.Close())
	if dir != "" {
		_, err := Cleanup(dir)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settle ends a start: see Remove.
func (p *Program) settle() ([]string, error) {
	for ifindex := range p.numbers.slots {
		if !p.names(ifindex) {
			delete(p.numbers.slots, ifindex)
		}
	}
	p.numbers.keep(p.held[tableNets])
	if p.pins.dir == "" {
		return nil, nil
	}
	removed, err := removeLinks(p.pins.dir, func(k linkKey) bool { return p.links[k] != nil })
	if err != nil {
		return removed, err
	}
	more, err := p.pins.settleMaps()
	return append(removed, more...), err
}

// names reports whether a table or a link still speaks of the device.
func (p *Program) names(ifindex int) bool {
	for _, e := range p.held[tableMACs] {
		if e.ifindex() == ifindex {
			return true
		}
	}
	return p.links[linkKey{hookXDP, ifindex}] != nil || p.links[linkKey{hookTC, ifindex}] != nil
}

// removeLinks detaches and unpins the links in dir that keep does not name.
func removeLinks(dir string, keep func(linkKey) bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, e := range entries {
		k, ok := linkKeyOf(e.Name())
		if !ok || keep(k) {
			continue
		}
		at := filepath.Join(dir, e.Name())
		l, err := link.LoadPinnedLink(at, nil)
		if err != nil {
			return removed, fmt.Errorf("open pinned link %s: %w", at, err)
		}
		err = l.Detach()
		l.Close()
		if err != nil && !gone(err) {
			return removed, fmt.Errorf("detach %s: %w", at, err)
		}
		if err := os.Remove(at); err != nil {
			return removed, err
		}
		removed = append(removed, at)
	}
	return removed, nil
}

// Cleanup removes all that a weir which no longer runs left in its directory of pins: programs are detached, links, maps, programs and
// the directory removed. It returns what it removed, also beside an error; nothing there is no error.
func Cleanup(path string) ([]string, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("statfs %s: %w", path, err)
	}
	if uint32(fs.Type) != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("cleanup %s: not on a bpffs", path)
	}
	removed, err := removeLinks(path, func(linkKey) bool { return false })
	if err != nil {
		return removed, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return removed, err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "v") {
			continue // not ours
		}
		at := filepath.Join(path, e.Name())
		if err := removePins(at); err != nil {
			return removed, err
		}
		removed = append(removed, at)
	}
	if err := os.Remove(path); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
			return removed, nil // something that is not ours, or the mount itself
		}
		return removed, err
	}
	return append(removed, path), nil
}
