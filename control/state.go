package control

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
	"weir/control/config"
	"weir/control/host"
	"weir/dataplane"
)

// state is what a weir leaves for the next one: the connection table, which is a file in memory, and beside it a legend of what the numbers in its
// entries mean. The table is as current as the last packet. The legend is replaced, as one act, before workers can use a number in a new sense, so
// at any instant the one that is there explains the table.
//
//	<place>/table        in the first of its places that suits
//	<dir>/legend.json   <dir> is /run/weir/<instance>, and need not be in memory
type state struct {
	log    *slog.Logger
	dir    string
	places []string
	want   string // engine.state_dir
	boot   [16]byte

	lock                *os.File // of the table's directory: no two weirs share one
	file                *os.File // the table; nil: it has no name, and ends with the process
	path                string   // of file
	table               uint64   // its ID
	positions, stations side
	restored            map[string][]byte // of the process before, by file

	homeless string // why the table has no file, if one was wanted

	last  []byte // of the legend, as it was written
	lost  bool   // the legend could not be written, and there is none
	moved string // where the table was before, until the legend says where it is
}

// tableFile and legendFile are the names of a state's files.
const tableFile, legendFile = "table", "legend.json"

// besideTable are the files that are of use with a table alone.
var besideTable = []string{legendFile, positionsFile, stationsFile}

// openState finds the directories of the weir with that admin socket, and touches nothing.
func openState(log *slog.Logger, socket, want string) (*state, error) {
	h, err := host.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	s := &state{log: log, dir: stateDir(h, socket), want: want, positions: side{name: positionsFile}, stations: side{name: stationsFile}}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	if _, err := hex.Decode(s.boot[:], []byte(strings.ReplaceAll(strings.TrimSpace(string(id)), "-", ""))); err != nil {
		return nil, fmt.Errorf("boot_id: %w", err)
	}
	switch want {
	case config.StateNone:
		if _, err := forgetState(h, socket); err != nil { // or the next weir would take over what is older than this one
			return nil, err
		}
	case config.StateAuto:
		s.places = statePlaces(h, socket)
	default:
		s.places = []string{want}
	}
	return s, nil
}

// statePlaces are where the table of the weir with that admin socket can be if the configuration does not say.
func statePlaces(h *host.Host, socket string) (all []string) {
	for _, mount := range hugeMounts() {
		all = append(all, filepath.Join(mount, "weir", instance(h, socket)))
	}
	return append(all, stateDir(h, socket), filepath.Join("/dev/shm/weir", instance(h, socket)))
}

// hugeMounts are the file systems of huge pages of 2 MiB.
func hugeMounts() (all []string) {
	b, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "hugetlbfs" && strings.Contains(","+f[3]+",", ",pagesize=2M,") {
			all = append(all, f[1])
		}
	}
	return all
}

// open opens the table of the process before, or makes one. bind is called first with what is left of the numbers' meaning, nil if nothing is.
func (s *state) open(o conntrack.Options, bind func(*legend)) (*conntrack.Table, error) {
	o.Boot, o.Now = s.boot, conntrack.TickOf(dataplane.Monotonic())
	begun := time.Now()
	r, old, err := s.find()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		s.log.Warn("the connections of the weir before this one are lost", "err", err)
	}
	if old != nil {
		defer func() {
			if old != s.file {
				old.Close()
			}
		}()
	}
	bind(r)
	t, err := s.make(o, r, old)
	if err != nil {
		return nil, err
	}
	s.table = t.ID()
	if r != nil {
		s.restored = s.sides(r.Table)
	}
	switch {
	case s.file == nil: // or the next weir would take over what is older than this one
		_ = os.Remove(filepath.Join(s.dir, legendFile))
		if r != nil {
			_ = os.Remove(r.File)
		}
	case r != nil && r.File != s.path:
		s.moved = r.File
	}
	if r != nil {
		x := t.Adopted()
		s.log.Info("the connections of the weir before this one go on", "kept", x.Kept, "expired", x.Expired, "without_backend", x.Refused, "half_made", x.Broken, "no_room", x.Crowded,
			"took", time.Since(begun).Round(time.Microsecond))
	}
	return t, nil
}

// find finds the table that the process before left and what it noted of it. An error that is not fs.ErrNotExist says why the one that is there is
// of no use.
func (s *state) find() (*legend, *os.File, error) {
	if s.want == config.StateNone {
		return nil, nil, fs.ErrNotExist
	}
	b, err := os.ReadFile(filepath.Join(s.dir, legendFile))
	if err != nil {
		return nil, nil, err
	}
	r, err := readLegend(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(s.dir, legendFile), err)
	}
	file, err := os.OpenFile(r.File, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	h, err := conntrack.ReadHeader(file, s.boot)
	if err == nil && fmt.Sprintf("%016x", h.ID) != r.Table {
		err = fmt.Errorf("%s: is table %016x, the legend is of %s", r.File, h.ID, r.Table)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return r, file, nil
}

// make makes the table: of old where that is, if its sizes are right, else in the first place that suits.
func (s *state) make(o conntrack.Options, r *legend, old *os.File) (*conntrack.Table, error) {
	o.Old = old
	var why []error
	for _, place := range s.places {
		if err := s.enter(place); err != nil {
			why = append(why, err)
			continue
		}
		if old != nil && filepath.Dir(r.File) == place {
			if h, err := conntrack.ReadHeader(old, s.boot); err == nil && o.Fits(h) {
				o.File = old
				t, err := conntrack.New(o)
				if err != nil {
					return nil, err
				}
				s.file, s.path = old, r.File
				return t, nil
			}
		}
		t, err := s.fresh(place, o)
		if err == nil {
			return t, nil
		}
		why = append(why, err)
		s.leave()
	}
	if s.want != config.StateNone && s.want != config.StateAuto {
		return nil, fmt.Errorf("engine.state_dir: %w", errors.Join(why...))
	}
	if s.want != config.StateNone {
		s.homeless = "connections end with this process, there is no place to keep them (engine.state_dir): " + strings.ReplaceAll(errors.Join(why...).Error(), "\n", "; ")
		s.log.Warn(s.homeless)
	}
	return nameless(o)
}

// enter makes the directory of a place ours, and locks it.
func (s *state) enter(place string) error {
	parent := filepath.Dir(place)
	if s.want == config.StateAuto {
		parent = filepath.Dir(parent) // weir/<instance> is ours to make
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(parent, &fsys); err != nil && s.want == config.StateAuto {
		return fmt.Errorf("%s: %w", parent, err)
	}
	if s.want == config.StateAuto && fsys.Type != unix.TMPFS_MAGIC && fsys.Type != unix.HUGETLBFS_MAGIC {
		return fmt.Errorf("%s: is not in memory", parent)
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(place), place} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if dir == place && (st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0) ||
			s.want == config.StateAuto && (st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0) {
			return fmt.Errorf("%s: others may write there: it must be a directory of this user's alone", dir)
		}
	}
	if err := unix.Statfs(place, &fsys); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	if fsys.Type != unix.TMPFS_MAGIC && fsys.Type != unix.HUGETLBFS_MAGIC {
		return fmt.Errorf("%s: is not in memory: name a directory on a tmpfs, such as /dev/shm/weir", place)
	}
	lock, err := os.Open(place)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%s: %w (another weir keeps its table there)", place, err), lock.Close())
	}
	s.lock = lock
	return nil
}

// leave gives up a place.
func (s *state) leave() {
	s.lock.Close()
	_ = os.Remove(s.lock.Name()) // stays if anything is in it
	s.lock = nil
}

// fresh makes a new table in a place, in place of what is there. Until it is complete the old one stays.
func (s *state) fresh(place string, o conntrack.Options) (t *conntrack.Table, err error) {
	if err := hasRoom(place, o.Size()); err != nil {
		return nil, err
	}
	name := filepath.Join(place, tableFile)
	_ = os.Remove(name + ".new") // of one that was killed here
	file, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	o.File = file
	if t, err = conntrack.New(o); err == nil {
		if err = os.Rename(name+".new", name); err != nil {
			err = errors.Join(err, t.Close())
		}
	}
	if err != nil {
		_ = os.Remove(name + ".new")
		return nil, errors.Join(err, file.Close())
	}
	s.file, s.path = file, name
	return t, nil
}

// hasRoom reports whether a table of size bytes fits into what is free at a place, should all of it be used.
func hasRoom(place string, size int) error {
	var fsys unix.Statfs_t
	if err := unix.Statfs(place, &fsys); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	if free := int64(fsys.Bavail) * fsys.Bsize; free < int64(size) {
		return fmt.Errorf("%s: %d MiB are free, conntrack.max_connections takes up to %d", place, free>>20, size>>20)
	}
	return nil
}

// id names the table in what is written down beside it.
func (s *state) id() string { return fmt.Sprintf("%016x", s.table) }

// write replaces the legend, unless it says the same already. Where that fails there is none: a wrong one would be worse.
func (s *state) write(r *legend) {
	if s.file == nil {
		return
	}
	r.Table, r.File = s.id(), s.path
	b, err := r.encode()
	name := filepath.Join(s.dir, legendFile)
	if err == nil && string(b) == string(s.last) {
		return
	}
	if err == nil {
		err = replace(name, b)
	}
	if s.moved != "" {
		_ = os.Remove(s.moved)
		s.moved = ""
	}
	s.last, s.lost = b, err != nil
	if s.lost {
		s.last = nil
		_ = os.Remove(name)
		s.log.Error("what connections are about is not kept: they end with this process", "err", err)
	}
}

// close leaves what there is for the next process, or nothing if there is no connection, or no legend that says what they are about.
func (s *state) close(connections int) error {
	if s.file == nil {
		return nil
	}
	if connections > 0 && s.lost {
		s.log.Warn("connections end with this process: what they are about could not be written", "connections", connections)
	} else if connections > 0 {
		s.log.Info("connections are kept for the next start; `weir cleanup` lets them go", "connections", connections, "file", s.path)
		return errors.Join(s.file.Close(), s.lock.Close())
	}
	errs := []error{os.Remove(s.path), s.file.Close()}
	for _, name := range besideTable {
		if err := os.Remove(filepath.Join(s.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if s.want == config.StateAuto {
		_ = os.Remove(s.lock.Name())
		_ = os.Remove(filepath.Dir(s.lock.Name())) // stays if another weir has its place there
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// isTable reports whether a connection table is at path, of whatever time and layout. A legend may be another user's, of a weir that ran as him: root
// removes nothing else on its word.
func isTable(path string) bool {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	_, err = conntrack.ReadHeader(file, [16]byte{})
	return err == nil || errors.Is(err, conntrack.ErrBoot) || errors.Is(err, conntrack.ErrLayout) || errors.Is(err, conntrack.ErrDamaged)
}

// forgetState removes what a dead weir left of its connections, and tells what.
func forgetState(h *host.Host, socket string) (removed []string, err error) {
	dir, files := stateDir(h, socket), []string{}
	if b, err := os.ReadFile(filepath.Join(dir, legendFile)); err == nil {
		if r, err := readLegend(b); err == nil && isTable(r.File) {
			files = append(files, r.File)
		}
	}
	places := statePlaces(h, socket)
	for _, p := range places {
		files = append(files, filepath.Join(p, tableFile), filepath.Join(p, tableFile+".new"))
	}
	var errs []error
	for _, f := range files {
		switch err := os.Remove(f); {
		case err == nil:
			removed = append(removed, "connections "+f)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	for _, name := range besideTable {
		for _, name := range []string{name, name + ".new"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	for _, p := range places {
		if p != dir {
			_ = os.Remove(p)
			_ = os.Remove(filepath.Dir(p))
		}
	}
	return removed, errors.Join(errs...)
}
