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

// stateFile records the VIPs that weir has bound in one namespace, so that the next weir can tell them from the operator's where the
// kernel cannot (before Linux 5.18). Addresses do not outlive the boot or the namespace, so a record of another one is void.
type stateFile struct {
	path string
	boot string
	ns   uint64
}

type record struct {
	Version   int             `json:"version"`
	Boot      string          `json:"boot"`
	Namespace uint64          `json:"namespace"`
	Addresses []recordAddress `json:"addresses"`
}

type recordAddress struct {
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	Marked  bool       `json:"marked"` // the kernel keeps the mark, and is to be believed rather than this file
}

func newStateFile(dir string, h *Host) stateFile {
	return stateFile{path: filepath.Join(dir, fmt.Sprintf("vips-%d.json", h.ino)), boot: bootID(), ns: h.ino}
}

// read returns the bindings of the record; none if there is no record, or if it is of another boot. A file that cannot be understood
// is an error: to go on would be to forget addresses of ours.
func (s stateFile) read() (map[Binding]bool, error) {
	out := make(map[Binding]bool)
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Version != 1 {
		return nil, fmt.Errorf("%s: not a record of VIPs that this version understands: %v (see to the addresses by hand, then remove the file)", s.path, err)
	}
	if r.Boot != s.boot || r.Namespace != s.ns {
		return out, nil
	}
	for _, a := range r.Addresses {
		out[Binding{a.Device, a.Address}] = a.Marked
	}
	return out, nil
}

// write replaces the record as one act, and removes it when nothing is bound. A write that fails leaves the old one.
func (s stateFile) write(bound map[Binding]bool) error {
	if len(bound) == 0 {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	r := record{Version: 1, Boot: s.boot, Namespace: s.ns}
	for _, b := range sorted(bound) {
		r.Addresses = append(r.Addresses, recordAddress{b.Device, b.Address, bound[b]})
	}
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
