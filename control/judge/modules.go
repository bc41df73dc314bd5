package judge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleDirs is where Debian's package user-mode-linux has its modules.
const moduleDirs = "/usr/lib/uml/modules"

// loadModules loads modules of the running kernel with all they need. One that does not exist is passed over: it may be built in.
func loadModules(names ...string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	dir := filepath.Join(moduleDirs, unix.ByteSliceToString(u.Release[:]))
	b, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	files := map[string][]string{} // by module name: its file, then those it needs, which come first in reverse order
	for _, line := range strings.Split(string(b), "\n") {
		if file, needs, ok := strings.Cut(line, ":"); ok {
			files[strings.TrimSuffix(filepath.Base(file), ".ko")] = append([]string{file}, strings.Fields(needs)...)
		}
	}
	for _, name := range names {
		list := files[name]
		for i := len(list) - 1; i >= 0; i-- {
			if err := loadModule(filepath.Join(dir, list[i])); err != nil {
				return err
			}
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("insmod %s: %w", file, err)
	}
	return nil
}
