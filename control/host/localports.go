package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The settings of a namespace that say which ports its own connections leave by (Documentation/networking/ip-sysctl.rst).
const (
	keyReservedPorts = "net/ipv4/ip_local_reserved_ports" // ports that the kernel gives to nobody who does not ask for them by number
	keyLocalRange    = "net/ipv4/ip_local_port_range"     // of which the kernel chooses; also for IPv6
	minHostPorts     = 1024                               // left to the host's own connections
	floorLocalRange  = 10240                              // below it are the ports of well-known servers
	reservedSize     = 6*(1<<15) + 1                      // bytes of the longest list: every other port, with five digits and a comma
	wayAround        = "or give fullnat.ports a narrower range"
)

// LocalPorts keeps the port ranges of full NAT and masquerading for weir alone: what comes to them is taken off the wire, so a
// connection of the host's own that left by one of them would never see its answers. They are reserved in
// net.ipv4.ip_local_reserved_ports, which is one list for the namespace, shared with the operator. weir adds to it what it lacks, and
// takes away what it has added. As the kernel keeps no mark there, a file in the state directory says what that is.
//
// Reserving holds for ports that the kernel will choose from now on. A connection that has one of them already keeps it.
type LocalPorts struct {
	h     *Host
	store stateFile
	write func(list string) error // to the kernel

	mu   sync.Mutex
	want []PortRange
	ours portSet // that we have added
}

// Reservation is what came of reserving port ranges.
type Reservation struct {
	Added   []PortRange // to the list by us; what was there already is not among them
	Refused []PortRange // not reserved, as they would leave too little to the host
	Range   PortRange   // net.ipv4.ip_local_port_range, from which the host takes its ports
	Left    int         // how many of Range stay the host's
	cure    string
}

// Warning is what a user should know and do; empty if every range is reserved.
func (r Reservation) Warning() string {
	if len(r.Refused) == 0 {
		return ""
	}
	return fmt.Sprintf("local ports %s are not reserved for weir: they would leave fewer than %d of the host's own range %v (net.ipv4.ip_local_port_range), "+
		"so a connection of the host's own may leave by one of them from the same address, and gets no answers then (cure: %s)",
		joinRanges(r.Refused, ", "), minHostPorts, r.Range, r.cure)
}

type portRecord struct {
	stamp
	Ports string `json:"ports"` // as the kernel writes a list
}

// NewLocalPorts reserves nothing yet. What a killed weir with the same state directory left is taken over by the next Reserve.
func (h *Host) NewLocalPorts(stateDir string) (*LocalPorts, error) {
	l := &LocalPorts{h: h, store: newStateFile(stateDir, "ports", h)}
	l.write = func(list string) error {
		// A line break alone empties the list; nothing at all would leave it.
		return fail("write", procSys+keyReservedPorts, h.writeSysctl(keyReservedPorts, list+"\n"))
	}
	var r portRecord
	valid, err := l.store.load(&r)
	if err != nil {
		return nil, err
	}
	if !valid {
		return l, l.store.remove()
	}
	if l.ours, err = parsePortSet(r.Ports); err != nil {
		return nil, fmt.Errorf("%s: %w", l.store.path, err)
	}
	return l, nil
}

// Reserve makes the ranges that weir has reserved those of want, and takes away what it has reserved besides. One that would leave
// fewer than 1024 ports to the host is not reserved, and is named in the answer; the others are. It may be called again at any time.
func (l *LocalPorts) Reserve(want []PortRange) (Reservation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = slices.Clone(want)
	r, _, err := l.reserve()
	return r, err
}

// Reservable is what Reserve of want would come to, with nothing changed.
func (h *Host) Reservable(want []PortRange) (Reservation, error) {
	now, err := h.reservedPorts()
	if err != nil {
		return Reservation{}, err
	}
	own, err := h.localRange()
	if err != nil {
		return Reservation{}, err
	}
	// What a running weir has reserved of the ranges is in the list already, and counts as the host's to lose once more.
	_, r := share(want, now.without(setOf(want)), own)
	return r, nil
}

// Cure is the command that makes room for what was refused, or what else to do; empty if nothing was.
func (r Reservation) Cure() string {
	if len(r.Refused) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimSuffix(r.cure, wayAround), ", ")
}

// Renew is Reserve of the same ranges, for what has happened meanwhile: somebody wrote the list without ours (`sysctl --system` writes
// it whole), or made room for a range that was refused. It reports if it had to change the list.
func (l *LocalPorts) Renew() (r Reservation, changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.want) == 0 {
		return r, false, nil
	}
	return l.reserve()
}

// Release takes out of the list what weir has added to it.
func (l *LocalPorts) Release() error {
	_, err := l.Reserve(nil)
	return err
}

// reserveTries bounds how often the list is written again because it then read otherwise than it was written.
const reserveTries = 4

func (l *LocalPorts) reserve() (r Reservation, changed bool, err error) {
	for range reserveTries {
		now, err := l.h.reservedPorts()
		if err != nil {
			return r, changed, err
		}
		own, err := l.h.localRange()
		if err != nil {
			return r, changed, err
		}
		mine := l.ours.and(now) // what of ours somebody has taken out is not ours any more
		theirs := now.without(mine)
		var grant portSet
		grant, r = share(l.want, theirs, own)
		ours := grant.without(theirs)
		r.Added = ours.ranges()
		next := theirs.or(ours)
		if next == now {
			return r, changed, l.note(ours)
		}
		// The record comes before the deed, so that no kill between the two leaves ports that nobody knows.
		if err := l.note(mine.or(ours)); err != nil {
			return r, changed, err
		}
		if err := l.write(next.String()); err != nil {
			return r, changed, err
		}
		changed = true // and it is read back, as another program may write at the same time
	}
	return r, changed, fmt.Errorf("%s%s: reads otherwise than it was written, %d times (another program writes it, too?)", procSys, keyReservedPorts, reserveTries)
}

// note records what is ours.
func (l *LocalPorts) note(ours portSet) error {
	if ours == l.ours {
		return nil
	}
	var err error
	if ours == (portSet{}) {
		err = l.store.remove()
	} else {
		err = l.store.save(portRecord{l.store.stamp(), ours.String()})
	}
	if err == nil {
		l.ours = ours
	}
	return err
}

// share says which of the ranges can be had, one after the other, without taking the host's last ports. A range that takes none of
// those that are the host's is always granted, however few they are.
func share(want []PortRange, theirs portSet, own PortRange) (grant portSet, r Reservation) {
	r.Range = own
	hosts := setOf([]PortRange{own}).without(theirs)
	taken := theirs
	for _, w := range want {
		ports := setOf([]PortRange{w})
		taken = taken.or(ports)
		left := hosts.without(ports)
		if left != hosts && left.len() < minHostPorts {
			r.Refused = append(r.Refused, w)
			continue
		}
		hosts, grant = left, grant.or(ports)
	}
	r.Left, r.cure = hosts.len(), cure(taken)
	return grant, r
}

// cure is the widest range for the host's own connections beside the ports of taken.
func cure(taken portSet) string {
	best := PortRange{1, 0}
	free := setOf([]PortRange{{floorLocalRange, 1<<16 - 1}}).without(taken)
	for _, r := range free.ranges() {
		if r.len() > best.len() {
			best = r
		}
	}
	if best.len() < minHostPorts {
		return strings.TrimPrefix(wayAround, "or ")
	}
	if best.From%2 == best.To%2 {
		best.To-- // the kernel asks for ends of different parity
	}
	return fmt.Sprintf("sysctl -w net.ipv4.ip_local_port_range=\"%d %d\", %s", best.From, best.To, wayAround)
}

// localRange is net.ipv4.ip_local_port_range.
func (h *Host) localRange() (r PortRange, err error) {
	text, err := h.Sysctl(keyLocalRange)
	if err != nil {
		return r, fail("read", procSys+keyLocalRange, err)
	}
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return r, fmt.Errorf("%s%s: %q is not a range", procSys, keyLocalRange, text)
	}
	from, err := strconv.ParseUint(fields[0], 10, 16)
	to, err2 := strconv.ParseUint(fields[1], 10, 16)
	if err := errors.Join(err, err2); err != nil {
		return r, fmt.Errorf("%s%s: %w", procSys, keyLocalRange, err)
	}
	return PortRange{uint16(from), uint16(to)}, nil
}

// reservedPorts reads net.ipv4.ip_local_reserved_ports. It takes one read that has room for all: the kernel gives as much of the list
// as the first one asks for, cut anywhere, and then says that this was the end. (Writing goes on where the kernel stopped, 4 KiB
// further, and adds to the list.)
func (h *Host) reservedPorts() (s portSet, err error) {
	var text []byte
	err = h.in(func() error {
		fd, err := unix.Open(procSys+keyReservedPorts, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		text = make([]byte, reservedSize)
		n, err := unix.Read(fd, text)
		if n == len(text) {
			err = io.ErrShortBuffer
		}
		text = text[:max(n, 0)]
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return s, fail("read", procSys+keyReservedPorts, fmt.Errorf("%w (a kernel without IPv4?)", err))
	}
	if err != nil {
		return s, fail("read", procSys+keyReservedPorts, err)
	}
	if s, err = parsePortSet(string(text)); err != nil {
		return s, fmt.Errorf("%s%s: %w", procSys, keyReservedPorts, err)
	}
	return s, nil
}
