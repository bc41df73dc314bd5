// Package importer turns the rules of IPVS's own tools into a configuration of weir's.
//
//	ipvsadm     what ipvsadm-save prints and ipvsadm-restore reads: one command of ipvsadm's a line
//	keepalived  keepalived.conf: virtual servers, groups of them, and the rest of keepalived, which is left out
//
// Both readers build what the tool would have built in the kernel, a list of services with their servers in the kernel's order, and
// one writer prints that as YAML. The kernel puts a new server at the head of its service's list, so a file that adds a, b, c makes the
// list c, b, a; that list is what schedulers walk, and the order that is printed.
//
// Three things can come of a line. It is carried over; or it has no equivalent and is noted, with its line and the reason, while the rest
// goes on ([Note]); or the tool itself would have refused it, which is an error. All errors are told at once.
package importer

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"weir/control/config"
)

// Result is what became of an input. Config is empty if there are Errors.
type Result struct {
	Config []byte  // YAML that passes weir check
	Notes  []Note  // what has no equivalent, in the order of the input
	Errors []Error // what the tool itself would refuse, in the order of the input
}

// Note says what of the input was left out, or carried over as something else, and why.
type Note struct {
	Pos
	Message string
}

func (n Note) String() string { return n.Pos.String() + ": note: " + n.Message }

// Error is something wrong with the input.
type Error struct {
	Pos
	Message string
}

func (e Error) Error() string { return e.Pos.String() + ": error: " + e.Message }

// Pos is a line of an input file.
type Pos struct {
	File  string
	Line  int // from 1; 0: the file as a whole
	order int // of reading, over all files
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Options are what an import cannot know from its input.
type Options struct {
	Ports    []Port   // as the user named them; none: one port "wan" on eth0, to be filled in
	Resolver Resolver // of names; nil: this host's
}

// Port is a port for the ports section.
type Port struct{ Name, Interface string }

// service is a virtual service as the kernel would hold it.
type service struct {
	pos         Pos
	vips        []netip.Addr // one, but for keepalived's groups
	port        uint16       // 0: every port
	protocol    string       // tcp, udp, sctp
	scheduler   string
	flags       []string // of the scheduler
	onePacket   bool
	persistence *persistence           // nil: none
	check       *check                 // of all backends; nil: none, or each has its own
	onDown      string                 // empty without checks
	inhibit     bool                   // a server that is down keeps its place
	backends    []backend              // in the order of the input until settle, then in the kernel's
	at          map[netip.AddrPort]int // where in backends each is, until settle
	comments    []Note                 // what was left out of it
}

// persistence is how long, and for how large a network of clients.
type persistence struct {
	seconds int
	prefix  int // bits of a client of the service's family; 0: as many as an address has
}

// backend is a real server.
type backend struct {
	pos          Pos
	address      netip.Addr
	port         uint16 // 0: the client's
	weight       int
	forward      string // nat, dr, ipip, gue, gre
	tunnelPort   uint16 // of gue
	checksum     bool   // of the tunnel, gue and gre
	upper, lower int
	backup       bool // only while no other takes connections
	check        *check
	unchecked    bool // whatever the service's check says
	comments     []Note
	deleted      bool // of no account any more
}

// id is what tells a server of a service from the others.
func (b *backend) id() netip.AddrPort { return netip.AddrPortFrom(b.address, b.port) }

// find is where in s.backends the server is that b names.
func (s *service) find(b *backend) (i int, ok bool) {
	i, ok = s.at[b.id()]
	return i, ok
}

// add adds a server that is not there.
func (s *service) add(b backend) {
	if s.at == nil {
		s.at = map[netip.AddrPort]int{}
	}
	s.at[b.id()] = len(s.backends)
	s.backends = append(s.backends, b)
}

// remove takes out the server at i. Those behind it stay where they are until settle.
func (s *service) remove(i int) {
	delete(s.at, s.backends[i].id())
	s.backends[i].deleted = true
}

// settle ends the reading: the servers come in the kernel's order, which adds each in front of the others.
func (s *service) settle() {
	s.backends = slices.DeleteFunc(s.backends, func(b backend) bool { return b.deleted })
	slices.Reverse(s.backends)
	s.at = nil
}

const (
	maxWeight = 65535   // of a backend of weir's
	longest   = 2678400 // seconds: 31 days, the longest of all times, as in IPVS
	// unsetTimeout is the persistence of ipvsadm -p without a number, seen in ipvsadm 1.31 (its manual says 300), and of keepalived's
	// persistence_timeout without one.
	unsetTimeout = 360
)

// tidied drops what weir cannot have: VIPs and servers that are no unicast address of a network, servers that are VIPs, and servers twice over.
func (r *reader) tidied(services []service) (kept []service) {
	vips := map[netip.Addr]bool{} // of all services
	for _, s := range services {
		s.vips = slices.DeleteFunc(s.vips, func(a netip.Addr) bool {
			why := config.NotUnicast(a)
			if why == "" && a.Is6() && a.IsLinkLocalUnicast() {
				why = "a link-local address"
			}
			if why != "" {
				r.notef(s.pos, nil, "%s: %s cannot be a VIP; left out", a, why)
			}
			return why != ""
		})
		for _, a := range s.vips {
			vips[a] = true
		}
		if len(s.vips) > 0 {
			kept = append(kept, s)
			continue
		}
		for _, b := range s.backends {
			r.notef(b.pos, nil, "%s: its service is left out", hostPort(b.address, b.port))
		}
	}
	for i := range kept {
		r.tidyServers(&kept[i], vips)
	}
	return kept
}

func (r *reader) tidyServers(s *service, vips map[netip.Addr]bool) {
	type identity struct {
		address netip.Addr
		port    uint16
	}
	seen := map[identity]bool{}
	var backends []backend
	for _, b := range s.backends {
		id := identity{b.address, b.port}
		if id.port == 0 {
			id.port = s.port
		}
		at := hostPort(b.address, b.port)
		switch why := config.NotUnicast(b.address); {
		case why != "":
			r.notef(b.pos, &s.comments, "%s: %s cannot be a backend; left out", at, why)
		case slices.Contains(s.vips, b.address):
			r.notef(b.pos, &s.comments, "%s: the VIP itself cannot be a backend; left out", at)
		case vips[b.address]:
			r.notef(b.pos, &s.comments, "%s: the VIP of another service cannot be a backend; left out", at)
		case seen[id]:
			r.notef(b.pos, &s.comments, "%s: another backend is the same server (port 0 is the client's port); left out", at)
		default:
			seen[id] = true
			backends = append(backends, b)
		}
	}
	s.backends = backends
}

// reader collects what is said of an input.
type reader struct {
	resolver Resolver
	notes    []Note
	errors   []Error
	lines    int    // read so far, over all files
	loose    []Note // notes that belong to nothing that is printed
}

// notef notes something, and leaves it as a comment beside what it is about; nil: at the head of the file.
func (r *reader) notef(at Pos, comments *[]Note, format string, args ...any) {
	n := Note{at, message(format, args...)}
	r.notes = append(r.notes, n)
	if comments == nil {
		comments = &r.loose
	}
	*comments = append(*comments, n)
}

// quietf notes something that a comment would not help with.
func (r *reader) quietf(at Pos, format string, args ...any) {
	r.notes = append(r.notes, Note{at, message(format, args...)})
}

func (r *reader) errorf(at Pos, format string, args ...any) {
	r.errors = append(r.errors, Error{at, message(format, args...)})
}

// message is one line that a terminal can bear, whatever the input holds.
func message(format string, args ...any) string {
	return strings.Map(printable, fmt.Sprintf(format, args...))
}

// result ends an import. Notes and errors of included files stand where these were read.
func (r *reader) result(d *document) Result {
	x := Result{Errors: r.errors}
	if len(r.errors) == 0 {
		d.services = r.tidied(d.services)
		d.comments = r.loose
		x.Config = d.yaml()
	}
	x.Notes = r.notes
	sortNotes(x.Notes)
	slices.SortStableFunc(x.Errors, func(a, b Error) int { return a.order - b.order })
	return x
}

// sortNotes brings notes into the order in which the input was read.
func sortNotes(notes []Note) {
	slices.SortStableFunc(notes, func(a, b Note) int { return a.order - b.order })
}

// schedulers are weir's, which are the kernel's.
var schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"}

// flagOf is what flag is of scheduler's, in weir's words; the kernel knows its flags by number, so that flag-1 is sh-fallback, too. It is
// empty if the scheduler has no such flag, and known says whether any has.
func flagOf(scheduler, flag string) (name string, known bool) {
	own, hasFlags := map[string][3]string{"sh": {"sh-fallback", "sh-port"}, "mh": {"mh-fallback", "mh-port"}}[scheduler]
	switch flag {
	case "flag-1", "flag-2", "flag-3":
		if hasFlags {
			name = own[flag[len(flag)-1]-'1']
		}
		return name, true
	case "sh-port", "sh-fallback", "mh-port", "mh-fallback":
		if strings.HasPrefix(flag, scheduler+"-") {
			name = flag
		}
		return name, true
	}
	return "", false
}

// addFlag adds flag unless it is there.
func (s *service) addFlag(flag string) {
	if !slices.Contains(s.flags, flag) {
		s.flags = append(s.flags, flag)
	}
}

// prefixOf is the length of a netmask such as 255.255.255.0. ok is false if its bits have holes.
func prefixOf(mask netip.Addr) (bits int, ok bool) {
	m := mask.As4()
	n := uint32(m[0])<<24 | uint32(m[1])<<16 | uint32(m[2])<<8 | uint32(m[3])
	for n&(1<<31) != 0 {
		bits++
		n <<= 1
	}
	return bits, n == 0
}

// hostPort is address:port, with brackets around an IPv6 address.
func hostPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// at is the place of the next line to be read.
func (r *reader) at(file string, line int) Pos {
	r.lines++
	return Pos{file, line, r.lines}
}

func newReader(o Options) reader {
	if o.Resolver == nil {
		o.Resolver = host{}
	}
	return reader{resolver: o.Resolver}
}

// MaxBytes is the size of the largest input.
const MaxBytes = config.MaxBytes

// checkText reports whether text may be parsed, and tells why not.
func checkText(r *reader, file, text string) bool {
	switch {
	case len(text) > MaxBytes:
		r.errorf(Pos{File: file}, "is larger than %d MiB", MaxBytes>>20)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		r.errorf(Pos{File: file}, "is not a text file in UTF-8")
	default:
		return true
	}
	return false
}

// ReadFile reads a file of an input, at most a byte more than MaxBytes.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxBytes+1))
}
