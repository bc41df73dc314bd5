package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// group is a control group that limits memory, of either version.
type group struct {
	dir   string
	limit string // file
	peak  string // file: the most that it ever had
	none  string // what lifts the limit
}

// newGroup makes one, or says why there is none.
func newGroup(name string) (*group, error) {
	for _, g := range []group{
		{dir: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes", none: "-1"},
		{dir: "/sys/fs/cgroup", limit: "memory.max", peak: "memory.peak", none: "max"},
	} {
		g.dir = filepath.Join(g.dir, name)
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(g.dir, g.peak)); err != nil { // Linux 5.19 in version 2
			_ = os.Remove(g.dir)
			continue
		}
		return &g, nil
	}
	return nil, fmt.Errorf("no control group that limits memory can be made")
}

func (g *group) procs() string { return filepath.Join(g.dir, "cgroup.procs") }

// squeeze limits the group to more bytes than it ever had, and returns how many these are.
func (g *group) squeeze(more int) (limit int, err error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.peak))
	if err != nil {
		return 0, err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, err
	}
	limit = most + more
	return limit, os.WriteFile(filepath.Join(g.dir, g.limit), []byte(strconv.Itoa(limit)), 0)
}

// release lifts the limit.
func (g *group) release() error {
	return os.WriteFile(filepath.Join(g.dir, g.limit), []byte(g.none), 0)
}

// close removes the group, which is empty but for what is just being reaped.
func (g *group) close() (err error) {
	for range 100 {
		if err = os.Remove(g.dir); err == nil || os.IsNotExist(err) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
