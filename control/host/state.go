package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// stateFile records what weir has done to one namespace where the kernel cannot tell it from the operator's doing, so that the next
// weir can. Nothing of it outlives the boot or the namespace, so a record of another one is void.
type stateFile struct {
	path string
	what string // what it is a record of
	boot string
	ns   uint64
}

// stamp is how every record begins.
type stamp struct {
	Version   int    `json:"version"`
	Boot      string `json:"boot"`
	Namespace uint64 `json:"namespace"`
}

const stateVersion = 1

func newStateFile(dir, what string, h *Host) stateFile {
	return stateFile{path: filepath.Join(dir, fmt.Sprintf("%s-%d.json", what, h.ino)), what: what, boot: bootID(), ns: h.ino}
}

// load reads the record into r. It reports false if there is no record, or if it is of another boot. A file that cannot be understood
// is an error: to go on would be to forget what is ours.
func (s stateFile) load(r any) (valid bool, err error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var of stamp
	if err = json.Unmarshal(b, &of); err == nil {
		err = json.Unmarshal(b, r)
	}
	if err == nil && of.Version != stateVersion {
		err = fmt.Errorf("version %d", of.Version)
	}
	if err != nil {
		return false, fmt.Errorf("%s: not a record of %s that this version understands: %v (see to them by hand, then remove the file)", s.path, s.what, err)
	}
	return of.Boot == s.boot && of.Namespace == s.ns, nil
}

// stamp is how a record of now begins.
func (s stateFile) stamp() stamp { return stamp{Version: stateVersion, Boot: s.boot, Namespace: s.ns} }

// save replaces the record as one act. One that fails leaves the old one.
func (s stateFile) save(r any) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// remove takes the record away, when there is nothing to be remembered.
func (s stateFile) remove() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// vipRecord is the record of the VIPs that weir has bound.
type vipRecord struct {
	stamp
	Addresses []recordAddress `json:"addresses"`
	Routes    []recordRoute   `json:"routes,omitempty"` // local routes to whole prefixes
}

type recordAddress struct {
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	Marked  bool       `json:"marked"` // the kernel keeps the mark, and is to be believed rather than this file
}

type recordRoute struct {
	Device string       `json:"device"`
	Prefix netip.Prefix `json:"prefix"`
}

// readVIPs returns the bindings of the record; the value says that the kernel keeps the mark, which it does for every route.
func (s stateFile) readVIPs() (map[Binding]bool, error) {
	out := make(map[Binding]bool)
	var r vipRecord
	if valid, err := s.load(&r); err != nil || !valid {
		return out, err
	}
	for _, a := range r.Addresses {
		out[bindingOf(a.Device, a.Address)] = a.Marked
	}
	for _, p := range r.Routes {
		out[Binding(p)] = true
	}
	return out, nil
}

// writeVIPs records the bindings, or that there are none.
func (s stateFile) writeVIPs(bound map[Binding]bool) error {
	if len(bound) == 0 {
		return s.remove()
	}
	r := vipRecord{stamp: s.stamp()}
	for _, b := range sorted(bound) {
		if b.Prefix.IsSingleIP() {
			r.Addresses = append(r.Addresses, recordAddress{b.Device, b.Prefix.Addr(), bound[b]})
		} else {
			r.Routes = append(r.Routes, recordRoute(b))
		}
	}
	return s.save(r)
}
