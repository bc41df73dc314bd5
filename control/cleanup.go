package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"weir/control/host"
	"weir/dataplane/steer"
)

// instance tells weirs of one host apart: by their network namespace and admin socket.
func instance(h *host.Host, socket string) string {
	return fmt.Sprintf("%d-%016x", h.Namespace(), xxhash.Sum64String(socket))
}

// pinPath is where the steering program's pins are; empty, and why, without a BPF file system.
func pinPath(h *host.Host, socket string) (string, error) {
	dir, err := host.FindBPFFS("")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "weir", instance(h, socket)), nil
}

// stateDir is where a running weir notes what it has added to the host.
func stateDir(h *host.Host, socket string) string {
	return filepath.Join(runDir, instance(h, socket))
}

// otherStateDirs are those of other weirs of this namespace, living or not.
func otherStateDirs(h *host.Host, socket string) (all []string) {
	own := stateDir(h, socket)
	dirs, _ := filepath.Glob(filepath.Join(runDir, fmt.Sprintf("%d-*", h.Namespace()))) // an error would be of the pattern
	for _, d := range dirs {
		if d != own {
			all = append(all, d)
		}
	}
	return all
}

// removeParents removes the directories around those of this instance, if no other is in them.
func removeParents(h *host.Host, socket string) {
	_ = os.Remove(filepath.Dir(stateDir(h, socket)))
	if path, err := pinPath(h, socket); err == nil {
		_ = os.Remove(filepath.Dir(path))
	}
}

// Cleanup removes what a dead weir with that admin socket left in this network namespace, and tells what.
func Cleanup(socket string) (removed []string, err error) {
	switch pid, err := peerPID(socket); {
	case err == nil:
		return nil, fmt.Errorf("admin socket %s: %w as pid %d: stop it instead", socket, ErrRunning, pid)
	case errors.Is(err, os.ErrPermission): // so it may be alive
		return nil, notAdmitted(err)
	}
	h, err := host.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var errs []error
	bindings, err := h.CleanupVIPs(stateDir(h, socket), otherStateDirs(h, socket)...)
	errs = append(errs, err)
	for _, b := range bindings {
		removed = append(removed, "vip "+b.String())
	}
	ports, err := h.CleanupLocalPorts(stateDir(h, socket))
	errs = append(errs, err)
	for _, r := range ports {
		removed = append(removed, "reserved ports "+r.String())
	}
	if path, _ := pinPath(h, socket); path != "" {
		pins, err := steer.Cleanup(path)
		removed, errs = append(removed, pins...), append(errs, err)
	}
	neighbors, err := h.CleanupNeighbors()
	errs = append(errs, err)
	for _, n := range neighbors {
		removed = append(removed, "neighbor "+n.Addr.String())
	}
	kept, err := forgetState(h, socket)
	removed, errs = append(removed, kept...), append(errs, err)
	if errors.Join(errs...) == nil { // otherwise the records are needed to try again
		errs = append(errs, os.RemoveAll(stateDir(h, socket)))
	}
	removeParents(h, socket)
	if os.Remove(socketFile(socket)) == nil {
		removed = append(removed, "socket "+socket)
	}
	return removed, errors.Join(errs...)
}
