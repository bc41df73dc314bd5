package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
)

// ErrNoService and ErrNoBackend say that a filter names what there is not.
var (
	ErrNoService = config.ErrNoService
	ErrNoBackend = config.ErrNoBackend
)

// ConnFilter says which connections are asked for. Its zero value is all.
type ConnFilter struct {
	Service string       // name, VIP, or VIP:PORT
	Backend string       // name, address, or address:port
	Client  netip.Prefix // invalid: everybody
	Port    uint16       // of the client, 0: any
	State   string       // such as ESTABLISHED; empty: any
	Limit   int          // 0: none
}

// connFilterOf reads a request's.
func connFilterOf(r *http.Request) (f ConnFilter, err error) {
	f.Service, f.Backend = r.FormValue("service"), r.FormValue("backend")
	if s := r.FormValue("client"); s != "" {
		if f.Client, f.Port, err = parseClient(s); err != nil {
			return f, err
		}
	}
	if s := r.FormValue("state"); s != "" {
		f.State = strings.ToUpper(s)
		if names := stateNames(); !slices.Contains(names, f.State) {
			return f, fmt.Errorf("state %q: must be one of %s", s, strings.Join(names, " "))
		}
	}
	if s := r.FormValue("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil || f.Limit < 0 {
			return f, fmt.Errorf("limit %q: must be a number", s)
		}
	}
	return f, nil
}

// parseClient reads an address, a prefix, or an address with a port.
func parseClient(s string) (p netip.Prefix, port uint16, err error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), 0, nil
	}
	if p, err = netip.ParsePrefix(s); err == nil {
		return p.Masked(), 0, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		a := ap.Addr().Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ap.Port(), nil
	}
	return p, 0, fmt.Errorf("client %q: must be an address, a prefix, or ADDRESS:PORT", s)
}

// stateNames are those of all states, each once, in the order of their numbers.
func stateNames() (names []string) {
	for s := range conntrack.NumStates {
		if n := s.String(); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// bearer is who a connection with a backend's ID belongs to.
type bearer struct {
	service string // name
	wanted  bool   // by a filter
}

// bearers are those of all IDs, with those marked that f asks for.
func (c *core) bearers(f *ConnFilter) ([]bearer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]bearer, len(c.reg.ids))
	service, backend := f.Service == "", f.Backend == ""
	for i, b := range c.reg.ids {
		if b == nil {
			continue
		}
		x := &all[i]
		if s := c.reg.services[b.key.service]; s != nil {
			x.service = s.name
		}
		ofService := f.Service == "" || f.Service == x.service || b.key.service.named(f.Service)
		ofBackend := f.Backend == "" || f.Backend == b.name || f.Backend == b.key.address.String() || f.Backend == addressOf(b.key)
		service, backend = service || ofService, backend || ofService && ofBackend
		x.wanted = ofService && ofBackend
	}
	if !service && c.cfg != nil { // one without backends has no connections, but is there
		for i := range c.cfg.Services {
			service = service || f.Service == c.cfg.Services[i].Name
			for _, key := range keysOf(&c.cfg.Services[i]) {
				service = service || key.named(f.Service)
			}
		}
	}
	switch {
	case !service:
		return nil, fmt.Errorf("%w: %s (`weir list` shows all)", ErrNoService, f.Service)
	case !backend:
		return nil, fmt.Errorf("%w: %s", ErrNoBackend, f.Backend)
	}
	return all, nil
}

// named reports whether text is the service's VIP, or VIP:PORT.
func (k *serviceKey) named(text string) bool {
	vip := VIP{k.vip}.String()
	if text == vip {
		return true
	}
	if strings.Contains(vip, ":") {
		vip = "[" + vip + "]"
	}
	at := fmt.Sprintf("%s:%d", vip, k.port)
	return text == at || k.portTo != k.port && text == fmt.Sprintf("%s-%d", at, k.portTo)
}

// Conns are the connections that f asks for, in no order.
func (c *core) Conns(f ConnFilter) (views []ConnView, err error) {
	views = []ConnView{}
	each, err := c.conns(f)
	if err == nil {
		each(func(v *ConnView) bool { views = append(views, *v); return true })
	}
	return views, err
}

// conns returns the connections that f asks for one at a time. What is yielded is valid until yield returns.
func (c *core) conns(f ConnFilter) (iter.Seq[*ConnView], error) {
	who, err := c.bearers(&f)
	if err != nil {
		return nil, err
	}
	return func(yield func(*ConnView) bool) {
		n, snap := 0, c.engine.Snapshot()
		c.engine.Table.Range(conntrack.TickOf(c.now()), func(i *conntrack.Info) bool {
			if !f.takes(i, who) {
				return true
			}
			v := connView(i, snap)
			if int(i.Backend) < len(who) {
				v.Service = who[i.Backend].service
			}
			n++
			return yield(&v) && (f.Limit == 0 || n < f.Limit)
		})
	}, nil
}

// takes reports whether f asks for the connection. who are the bearers that it asks for.
func (f *ConnFilter) takes(i *conntrack.Info, who []bearer) bool {
	return (f.Service == "" && f.Backend == "" || int(i.Backend) < len(who) && who[i.Backend].wanted) &&
		(f.State == "" || i.State.String() == f.State) &&
		(f.Port == 0 || i.Forward.Ports>>16 == uint32(f.Port)) &&
		(!f.Client.IsValid() || f.Client.Contains(dataplane.NetipOf(i.Forward.Src, i.Forward.V6)))
}

// empty reports whether f asks for all connections.
func (f *ConnFilter) empty() bool {
	return f.Service == "" && f.Backend == "" && f.State == "" && f.Port == 0 && !f.Client.IsValid()
}

// ErrAllConns says that a deletion of all connections was asked for by leaving things out.
var ErrAllConns = errors.New("this is every connection: say so (all=true) if it is meant")

// DeleteConns ends the connections that f asks for, at most f.Limit, and returns how many those were. Nobody is told.
func (c *core) DeleteConns(f ConnFilter, all bool) (n int, err error) {
	if f.empty() && !all {
		return 0, ErrAllConns
	}
	who, err := c.bearers(&f)
	if err != nil {
		return 0, err
	}
	return c.engine.Delete(c.now(), f.Limit, func(i *conntrack.Info) bool { return f.takes(i, who) }), nil
}

// serveConns writes connections as they are found. There may be ten million: a list of them would take gigabytes for everybody who asks.
func (c *core) serveConns(w http.ResponseWriter, r *http.Request) {
	f, err := connFilterOf(r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	each, err := c.conns(f)
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 64<<10)
	before := "[\n  "
	for v := range each {
		text, err := json.MarshalIndent(v, "  ", "  ")
		if err != nil {
			return // cannot be: a view is plain data
		}
		_, _ = out.WriteString(before)
		if _, err := out.Write(text); err != nil {
			return // the client went away
		}
		before = ",\n  "
	}
	if before == "[\n  " {
		_, _ = out.WriteString("[]\n")
	} else {
		_, _ = out.WriteString("\n]\n")
	}
	_ = out.Flush()
}
