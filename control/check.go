package control

import (
	"errors"
	"fmt"
	"io"

	"weir/control/config"
	"weir/control/host"
	"weir/control/live"
)

// ErrUnreadable says that a configuration file could not be read at all.
var ErrUnreadable = errors.New("cannot read the configuration")

// CheckReport is what `weir check` has found, in the order of the file.
type CheckReport struct {
	File     string         `json:"file"`
	Valid    bool           `json:"valid"` // no finding is an error
	Findings []live.Finding `json:"findings"`
}

// WriteText writes the findings as compilers do, each with its cure below, and whether the configuration is valid.
func (r *CheckReport) WriteText(w io.Writer) {
	for _, f := range r.Findings {
		fmt.Fprintln(w, f.Text())
	}
	if r.Valid {
		fmt.Fprintf(w, "%s: valid\n", r.File)
	}
}

// Check finds everything that is wrong with the configuration at path. It touches nothing; with liveHost it looks at this host, too, and asks whether a daemon
// runs at socket, or where the configuration says if that is empty. The error is ErrUnreadable, or the host's.
func Check(path, socket string, liveHost bool) (*CheckReport, error) {
	cfg, diags := config.Load(path)
	if err := config.Unreadable(diags); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	r := &CheckReport{File: path, Valid: !config.HasErrors(diags), Findings: []live.Finding{}}
	for _, d := range diags {
		message := d.Message
		if d.Suggestion != "" {
			message += fmt.Sprintf(" (did you mean %q?)", d.Suggestion)
		}
		r.Findings = append(r.Findings, live.Finding{Level: live.Level(d.Severity.String()), Check: "config", File: d.File, Line: d.Line, Column: d.Col, Path: d.Path, Message: message, Cure: []string{}})
	}
	if !r.Valid || !liveHost {
		return r, nil
	}
	h, err := host.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if socket == "" {
		socket = cfg.Admin.Socket
	}
	for _, f := range live.Examine(examinationOf(cfg, h, socket)) {
		r.Findings = append(r.Findings, f)
		r.Valid = r.Valid && f.Level != live.Error
	}
	return r, nil
}

// Schema is the JSON Schema of configurations, for editors.
func Schema() ([]byte, error) { return config.Schema() }

// examinationOf is what live is to know of what a daemon with this configuration would take.
func examinationOf(cfg *config.Config, h *host.Host, socket string) live.Options {
	o := live.Options{Config: cfg, Host: h, MaxMTU: maxMTU, Machine: live.ThisMachine()}
	if cpus, err := workerCPUs(cfg); err == nil {
		o.Workers = len(cpus)
	}
	devices, mtu := (&ports{cfg: cfg}).devices(), 0
	for i := range cfg.Ports {
		if l, err := h.Link(cfg.Ports[i].Interface); err == nil {
			mtu = max(mtu, l.MTU)
		}
	}
	chunk, _ := chunkSize(mtu)
	o.Frames = uint64(o.Workers) * uint64(chunksFor(len(devices))) * uint64(chunk)
	o.Table = uint64(cfg.Conntrack.MaxConnections) * bytesPerConn(cfg)
	var s Status
	o.Running = NewClient(socket).Get("/status", &s) == nil
	return o
}

// bytesPerConn is what a connection takes of the table when it is full of the longest that there may be (docs/architecture.md).
func bytesPerConn(cfg *config.Config) uint64 {
	for i := range cfg.Services {
		for _, p := range cfg.Services[i].VIPs {
			if p.Addr().Is6() {
				return 296
			}
		}
	}
	return 168
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
