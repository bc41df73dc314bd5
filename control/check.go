package control

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"weir/control/config"
	"weir/control/host"
)

// ErrUnreadable says that a configuration file could not be read at all.
var ErrUnreadable = errors.New("cannot read the configuration")

// Check writes everything that is wrong with the configuration at path to w. It touches nothing; with live it looks at the host's
// interfaces. The error is ErrInvalid or ErrUnreadable.
func Check(path string, live bool, w io.Writer) error {
	cfg, err := load(config.Load, path, w)
	if err != nil || !live {
		return err
	}
	h, err := host.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	bad := false
	links, seen := cfg.WrittenLinks(), make([]config.Link, len(cfg.Ports))
	for i := range cfg.Ports {
		p := &cfg.Ports[i]
		if p.Interface == "" {
			continue
		}
		l, err := h.Link(p.Interface)
		switch {
		case err != nil:
			bad = true
			fmt.Fprintln(w, cfg.Errorf(p.Field("interface"), p.Path+".interface", "%v", err))
		case l.Kind == "bond":
			bad = true
			fmt.Fprintln(w, cfg.Errorf(p.Field("interface"), p.Path+".interface", "%s is a bond: bonds are not supported yet", p.Interface))
		case !l.Up:
			fmt.Fprintln(w, cfg.Warnf(p.Field("interface"), p.Path+".interface", "%s is down: `ip link set %s up`", p.Interface, p.Interface))
		case p.MTU > l.MTU:
			fmt.Fprintln(w, cfg.Warnf(p.Field("mtu"), p.Path+".mtu", "the MTU of %s is %d; that holds", p.Interface, l.MTU))
		}
		if links[i].MTU == 0 || l.MTU < links[i].MTU {
			links[i].MTU = l.MTU
		}
		seen[i].Addresses = l.Addresses
		links[i].Addresses = append(links[i].Addresses, l.Addresses...)
	}
	told := cfg.MTUWarnings(cfg.WrittenLinks())
	for _, d := range cfg.MTUWarnings(links) {
		if !slices.Contains(told, d) {
			fmt.Fprintln(w, d)
		}
	}
	for _, d := range append(cfg.AccessWarnings(seen), lacking(cfg, h)...) {
		fmt.Fprintln(w, d)
	}
	if bad {
		return fmt.Errorf("%s: %w", path, ErrInvalid)
	}
	return nil
}

// lacking warns of VTEPs that the host has no address for, as the daemon does in its log.
func lacking(cfg *config.Config, h *host.Host) (diags []config.Diagnostic) {
	locals, err := h.Locals()
	if err != nil {
		return nil // an old kernel's trouble; the daemon will say it
	}
	for i := range cfg.VXLAN.Segments {
		if s := &cfg.VXLAN.Segments[i]; !slices.Contains(locals, host.HostPrefix(s.VTEP)) {
			diags = append(diags, cfg.Warnf(s.Field("vtep"), s.Path+".vtep", "%s", noVTEP(s.VTEP)))
		}
	}
	return diags
}

// diagnose prints diagnostics and turns them into an error, or nil if there are only warnings.
func diagnose(path string, diags []config.Diagnostic, w io.Writer) error {
	unreadable := config.Unreadable(diags)
	if unreadable != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, unreadable)
	}
	for _, d := range diags {
		if w != nil {
			fmt.Fprintln(w, d)
		}
	}
	if config.HasErrors(diags) {
		return fmt.Errorf("%s: %w", path, ErrInvalid)
	}
	return nil
}
