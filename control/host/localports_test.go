package host_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weir/control/host"
	"weir/control/host/testnet"
)

const (
	reservedKey = "net/ipv4/ip_local_reserved_ports"
	rangeKey    = "net/ipv4/ip_local_port_range"
)

// newSpace is one namespace with nothing in it.
func newSpace(t *testing.T) *testnet.Space {
	t.Helper()
	s, err := testnet.NewT(t, prefix).Space("lb")
	must(t, err)
	return s
}

// operator writes the list as an administrator does, and shows it as he would look at it.
func operator(t *testing.T, s *testnet.Space, list string) {
	t.Helper()
	must(t, s.Sysctl(reservedKey, list+"\n"))
}

func reserved(t *testing.T, s *testnet.Space) string {
	t.Helper()
	v, err := s.Host().Sysctl(reservedKey)
	must(t, err)
	return v
}

func newLocalPorts(t *testing.T, s *testnet.Space, dir string) *host.LocalPorts {
	t.Helper()
	l, err := s.Host().NewLocalPorts(dir)
	must(t, err)
	return l
}

func reserve(t *testing.T, l *host.LocalPorts, want ...host.PortRange) host.Reservation {
	t.Helper()
	r, err := l.Reserve(want)
	must(t, err)
	return r
}

func TestLocalPortsAreReservedBesideTheOperators(t *testing.T) {
	s := newSpace(t)
	operator(t, s, "8080,40005-40020")
	l := newLocalPorts(t, s, t.TempDir())
	for _, step := range []struct {
		name  string
		want  []host.PortRange
		list  string
		added []host.PortRange
	}{
		{"two, one of them the operator's in part", []host.PortRange{{50000, 50099}, {40000, 40010}}, "8080,40000-40020,50000-50099", []host.PortRange{{40000, 40004}, {50000, 50099}}},
		{"the same again", []host.PortRange{{50000, 50099}, {40000, 40010}}, "8080,40000-40020,50000-50099", []host.PortRange{{40000, 40004}, {50000, 50099}}},
		{"a reload: another range", []host.PortRange{{50050, 50149}}, "8080,40005-40020,50050-50149", []host.PortRange{{50050, 50149}}},
		{"a reload: the operator's, whole", []host.PortRange{{8080, 8080}}, "8080,40005-40020", nil},
		{"a reload: the first and the last port", []host.PortRange{{65000, 65535}, {1, 1}}, "1,8080,40005-40020,65000-65535", []host.PortRange{{1, 1}, {65000, 65535}}},
		{"a reload: none", nil, "8080,40005-40020", nil},
	} {
		r := reserve(t, l, step.want...)
		if got := reserved(t, s); got != step.list || !slices.Equal(r.Added, step.added) || len(r.Refused) > 0 || r.Warning() != "" {
			t.Errorf("%s: the list is %q, added %v, refused %v; want %q, %v", step.name, got, r.Added, r.Refused, step.list, step.added)
		}
	}
	reserve(t, l, host.PortRange{From: 50000, To: 50099})
	must(t, l.Release())
	if got := reserved(t, s); got != "8080,40005-40020" {
		t.Errorf("after Release: %q", got)
	}
	operator(t, s, "")
	reserve(t, l, host.PortRange{From: 50000, To: 50099})
	must(t, l.Release())
	if got := reserved(t, s); got != "" {
		t.Errorf("after Release, where nothing was before: %q", got)
	}
}

// The kernel must give none of them to a socket that asks for any port, which is all that a reservation is for.
func TestTheKernelGivesReservedPortsToNobody(t *testing.T) {
	s := newSpace(t)
	must(t, s.Sysctl(rangeKey, "40000 41999"))
	l := newLocalPorts(t, s, t.TempDir())
	reserve(t, l, host.PortRange{From: 40000, To: 40975})
	var inside, got int
	must(t, s.Exec(func() error {
		for range 300 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
				return err
			}
			name, err := unix.Getsockname(fd)
			if err != nil {
				return err
			}
			if p := name.(*unix.SockaddrInet4).Port; p <= 40975 {
				inside++
			}
			got++
		}
		return nil
	}))
	if inside > 0 || got != 300 {
		t.Errorf("%d of %d sockets got a reserved port", inside, got)
	}
	must(t, l.Release())
}

func TestTheHostsOwnRangeIsNotTakenWhole(t *testing.T) {
	s := newSpace(t)
	must(t, s.Sysctl(rangeKey, "32768 60999"))
	operator(t, s, "8080")
	l := newLocalPorts(t, s, t.TempDir())
	whole, part := host.PortRange{From: 32768, To: 60999}, host.PortRange{From: 40000, To: 40099}
	r := reserve(t, l, whole, part)
	if got := reserved(t, s); got != "8080,40000-40099" || !slices.Equal(r.Refused, []host.PortRange{whole}) || r.Range != whole || r.Left != 28132 {
		t.Errorf("the list is %q, %+v; want the narrow range alone", got, r)
	}
	cure, ok := strings.CutPrefix(r.Warning()[max(0, strings.Index(r.Warning(), "sysctl -w ")):], "sysctl -w ")
	if !ok {
		t.Fatalf("the warning names no cure: %q", r.Warning())
	}
	// What it names works, also without a reload.
	cure, _, _ = strings.Cut(cure, ",")
	key, value, _ := strings.Cut(cure, "=")
	if key != "net.ipv4.ip_local_port_range" {
		t.Fatalf("the cure is %q", cure)
	}
	must(t, s.Sysctl(rangeKey, strings.Trim(value, `"`)))
	r, changed, err := l.Renew()
	if err != nil || !changed || r.Warning() != "" || reserved(t, s) != "8080,32768-60999" {
		t.Errorf("with the cure: changed %v, %v, %q, the list is %q", changed, err, r.Warning(), reserved(t, s))
	}
	must(t, l.Release())
}

func TestWhatOthersWriteMeanwhileStays(t *testing.T) {
	s := newSpace(t)
	l := newLocalPorts(t, s, t.TempDir())
	a := host.PortRange{From: 40000, To: 40099}
	reserve(t, l, a)
	if _, changed, err := l.Renew(); err != nil || changed {
		t.Errorf("nothing happened, and Renew wrote: %v, %v", changed, err)
	}
	operator(t, s, "9000,40000-40099") // read, added to, written
	reserve(t, l, a, host.PortRange{From: 50000, To: 50000})
	if got := reserved(t, s); got != "9000,40000-40099,50000" {
		t.Errorf("after an addition of theirs: %q", got)
	}
	operator(t, s, "9001") // as `sysctl --system` does
	if r, changed, err := l.Renew(); err != nil || !changed || len(r.Added) != 2 || reserved(t, s) != "9001,40000-40099,50000" {
		t.Errorf("after they wrote the list without ours: %+v, %v, %v, %q", r, changed, err, reserved(t, s))
	}
	operator(t, s, "9001,40050-40099,50000") // half of ours taken out
	must(t, l.Release())
	if got := reserved(t, s); got != "9001" {
		t.Errorf("after Release: %q", got)
	}
}

func TestLocalPortsOfAKilledWeir(t *testing.T) {
	a, b := host.PortRange{From: 40000, To: 40099}, host.PortRange{From: 50000, To: 50099}
	for _, tc := range []struct {
		name      string
		meanwhile string // what the operator writes after the kill
		next      []host.PortRange
		list      string // with the next one running
		after     string // after its Release
	}{
		{"the next wants the same", "", []host.PortRange{a}, "8080,40000-40099", "8080"},
		{"the next wants another", "", []host.PortRange{b}, "8080,50000-50099", "8080"},
		{"the next wants none", "", nil, "8080", "8080"},
		{"the operator added to it", "443,8080,40000-40099", []host.PortRange{b}, "443,8080,50000-50099", "443,8080"},
		{"the operator threw it away", "8080", []host.PortRange{a}, "8080,40000-40099", "8080"},
		{"the operator threw half of it away", "8080,40050-40099", []host.PortRange{b}, "8080,50000-50099", "8080"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSpace(t)
			dir := t.TempDir()
			operator(t, s, "8080")
			reserve(t, newLocalPorts(t, s, dir), a) // killed: not released
			if tc.meanwhile != "" {
				operator(t, s, tc.meanwhile)
			}
			next := newLocalPorts(t, s, dir)
			reserve(t, next, tc.next...)
			if got := reserved(t, s); got != tc.list {
				t.Errorf("the next one runs: %q, want %q", got, tc.list)
			}
			must(t, next.Release())
			if got := reserved(t, s); got != tc.after {
				t.Errorf("after Release: %q, want %q", got, tc.after)
			}
			if files, _ := os.ReadDir(dir); len(files) > 0 {
				t.Errorf("the state directory holds %v", files)
			}
		})
	}
}

// Wherever a kill strikes, the record knows all of ours that may be on the list.
func TestLocalPortsOfAWeirThatWasKilledWhileItWrote(t *testing.T) {
	a, b := host.PortRange{From: 40000, To: 40099}, host.PortRange{From: 50000, To: 50099}
	for _, after := range []bool{false, true} {
		s := newSpace(t)
		dir := t.TempDir()
		operator(t, s, "8080")
		dead := newLocalPorts(t, s, dir)
		reserve(t, dead, a)
		dead.DiesWriting(after)
		if _, err := dead.Reserve([]host.PortRange{b}); err == nil {
			t.Fatal("it lives")
		}
		if got, want := reserved(t, s), map[bool]string{false: "8080,40000-40099", true: "8080,50000-50099"}[after]; got != want {
			t.Fatalf("killed, after the write %v: %q, want %q", after, got, want)
		}
		must(t, newLocalPorts(t, s, dir).Release())
		if got := reserved(t, s); got != "8080" {
			t.Errorf("killed, after the write %v: the next one left %q", after, got)
		}
	}
}

func TestCleanupGivesLocalPortsBack(t *testing.T) {
	s := newSpace(t)
	dir := t.TempDir()
	operator(t, s, "8080,40000")
	reserve(t, newLocalPorts(t, s, dir), host.PortRange{From: 40000, To: 40099})
	operator(t, s, "8080,40000-40049") // his, since
	removed, err := s.Host().CleanupLocalPorts(dir)
	must(t, err)
	if got := reserved(t, s); got != "8080,40000" || !slices.Equal(removed, []host.PortRange{{From: 40001, To: 40049}}) {
		t.Errorf("the list is %q, removed %v", got, removed)
	}
	if removed, err := s.Host().CleanupLocalPorts(dir); err != nil || len(removed) > 0 {
		t.Errorf("a second time: %v, %v", removed, err)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("the state directory holds %v", files)
	}
}

func TestARecordOfPortsOfAnotherNamespaceIsVoidAndABrokenOneAnError(t *testing.T) {
	s, other := newSpace(t), newSpace(t)
	dir := t.TempDir()
	file := func(s *testnet.Space) string { return fmt.Sprintf("%s/ports-%d.json", dir, s.Host().Namespace()) }
	reserve(t, newLocalPorts(t, s, dir), host.PortRange{From: 40000, To: 40099})
	b, err := os.ReadFile(file(s))
	must(t, err)
	must(t, os.WriteFile(file(other), b, 0o644))
	operator(t, other, "40000-40099")
	must(t, newLocalPorts(t, other, dir).Release())
	if got := reserved(t, other); got != "40000-40099" {
		t.Errorf("by the record of another namespace the list became %q", got)
	}
	for _, broken := range []string{"{", strings.Replace(string(b), "40000-40099", "40099-40000", 1), strings.Replace(string(b), `"version": 1`, `"version": 2`, 1)} {
		must(t, os.WriteFile(file(s), []byte(broken), 0o644))
		if _, err := s.Host().NewLocalPorts(dir); err == nil || !strings.Contains(err.Error(), file(s)) {
			t.Errorf("a broken record: %v, want an error that names the file", err)
		}
	}
}

// A list longer than the kernel takes or gives at once. os.ReadFile would see its first 512 bytes.
func TestALongListIsReadAndWrittenWhole(t *testing.T) {
	s := newSpace(t)
	must(t, s.Sysctl(rangeKey, "1024 9999"))
	l := newLocalPorts(t, s, t.TempDir())
	var want []host.PortRange
	for p := 10000; p < 60000; p += 4 {
		want = append(want, host.PortRange{From: uint16(p), To: uint16(p + 1)})
	}
	operator(t, s, "8080,65535")
	if r := reserve(t, l, want...); !slices.Equal(r.Added, want) {
		t.Errorf("%d ranges added, want %d", len(r.Added), len(want))
	}
	if r, changed, err := l.Renew(); err != nil || changed || len(r.Added) != len(want) {
		t.Errorf("read again: %d ranges, changed %v, %v", len(r.Added), changed, err)
	}
	must(t, l.Release())
	if got := reserved(t, s); got != "8080,65535" {
		t.Errorf("after Release: %.60q", got)
	}
}

// Two weirs, each with a state directory of its own, are killed, started, reloaded and stopped, and an operator writes in between. A twin that
// keeps one set of ports for each of the three says what the list must be.
func TestManyHandsOnTheListAgainstANaiveTwin(t *testing.T) {
	s := newSpace(t)
	must(t, s.Sysctl(rangeKey, "1024 9999"))
	const low, high = 40000, 40031
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 87))
		dirs := [2]string{t.TempDir(), t.TempDir()}
		weirs := [2]*host.LocalPorts{newLocalPorts(t, s, dirs[0]), newLocalPorts(t, s, dirs[1])}
		operator(t, s, "")
		list := map[int]bool{}
		ours := [2]map[int]bool{{}, {}}
		var script []string
		for range 25 {
			w := rnd.IntN(2)
			switch rnd.IntN(5) {
			case 0, 1, 2: // start, reload or stop
				var want []host.PortRange
				wants := map[int]bool{}
				for range rnd.IntN(4) {
					from := low + rnd.IntN(high-low+1)
					to := min(from+rnd.IntN(6), high)
					want = append(want, host.PortRange{From: uint16(from), To: uint16(to)})
					for p := from; p <= to; p++ {
						wants[p] = true
					}
				}
				script = append(script, fmt.Sprintf("weir %d wants %v", w, want))
				reserve(t, weirs[w], want...)
				for p := low; p <= high; p++ {
					if ours[w][p] && !list[p] {
						delete(ours[w], p) // somebody took it out
					}
					if ours[w][p] && !wants[p] {
						delete(ours[w], p)
						delete(list, p)
					}
					if wants[p] && !list[p] {
						list[p], ours[w][p] = true, true
					}
				}
			case 3: // kill and start
				script = append(script, fmt.Sprintf("weir %d is killed", w))
				weirs[w] = newLocalPorts(t, s, dirs[w])
			case 4: // the operator adds a port, or takes one out
				p := low + rnd.IntN(high-low+1)
				list[p] = !list[p]
				var parts []string
				for q := low; q <= high; q++ {
					if list[q] {
						parts = append(parts, fmt.Sprint(q))
					} else {
						delete(list, q)
					}
				}
				script = append(script, fmt.Sprintf("operator: %d is %v", p, list[p]))
				operator(t, s, strings.Join(parts, ","))
			}
			got := map[int]bool{}
			for part := range strings.SplitSeq(reserved(t, s), ",") {
				var from, to int
				if n, _ := fmt.Sscanf(part, "%d-%d", &from, &to); n == 1 {
					to = from
				}
				for p := from; p <= to && p > 0; p++ {
					got[p] = true
				}
			}
			for p := low; p <= high; p++ {
				if got[p] != list[p] {
					t.Fatalf("seed %d: port %d on the list: %v, want %v\n%s", seed, p, got[p], list[p], strings.Join(script, "\n"))
				}
			}
		}
	}
}
