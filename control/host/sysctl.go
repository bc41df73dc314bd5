package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Keys have the form net/ipv4/conf/eth1.100/rp_filter, with slashes, as the name of a device may have dots. sysctl(8) takes them so, too.
const procSys = "/proc/sys/"

// Sysctl reads a kernel setting of the namespace.
func (h *Host) Sysctl(key string) (value string, err error) {
	err = h.in(func() error {
		b, err := os.ReadFile(procSys + key)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// sysctlInt is Sysctl for a number. A setting that the kernel does not have counts as 0.
func (h *Host) sysctlInt(key string) int {
	v, err := h.Sysctl(key)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(v)
	return n
}

func (h *Host) writeSysctl(key, value string) error {
	return h.in(func() error {
		// Not created if it is not there: a kernel without it says ENOENT.
		f, err := os.OpenFile(procSys+key, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(value)
			err = errors.Join(err, f.Close())
		}
		return err
	})
}

// Setting is one kernel setting that was changed.
type Setting struct {
	Key, Old, New string
}

func (s Setting) String() string { return fmt.Sprintf("%s: %s -> %s", s.Key, s.Old, s.New) }

// Sysctls changes kernel settings and remembers what they were. One goroutine uses it.
type Sysctls struct {
	h       *Host
	changes []Setting
}

// NewSysctls has changed nothing yet.
func (h *Host) NewSysctls() *Sysctls { return &Sysctls{h: h} }

// Set changes a setting. One that has the value already is left alone, and not listed.
func (s *Sysctls) Set(key, value string) error {
	old, err := s.h.Sysctl(key)
	if err != nil {
		return fail("read", procSys+key, err)
	}
	if old == value {
		return nil
	}
	if err := s.h.writeSysctl(key, value); err != nil {
		return fail("write "+value+" to", procSys+key, err)
	}
	s.changes = append(s.changes, Setting{key, old, value})
	return nil
}

// Changes are the settings that were changed, in order.
func (s *Sysctls) Changes() []Setting { return append([]Setting(nil), s.changes...) }

// Close puts back what was changed, last first. A setting that somebody else has changed since, or whose device is gone, stays as it is.
func (s *Sysctls) Close() error {
	var errs []error
	for i := len(s.changes) - 1; i >= 0; i-- {
		c := s.changes[i]
		now, err := s.h.Sysctl(c.Key)
		if err != nil || now != c.New {
			continue
		}
		if err := s.h.writeSysctl(c.Key, c.Old); err != nil {
			errs = append(errs, fail("write "+c.Old+" to", procSys+c.Key, err))
		}
	}
	s.changes = nil
	return errors.Join(errs...)
}
