package host

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGiveTree: all of a tree changes hands, what links in it lead to does not, nor does anything below a directory that is the user's already.
func TestGiveTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	tree, outside := filepath.Join(dir, "tree"), filepath.Join(dir, "outside")
	for _, d := range []string{tree, filepath.Join(tree, "a"), filepath.Join(tree, "bpf")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{outside, filepath.Join(tree, "a", "file"), filepath.Join(tree, "bpf", "other")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(tree, "a", "link")); err != nil {
		t.Fatal(err)
	}
	const uid, gid = 65534, 65533
	owner := func(path string) [2]int {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		return [2]int{int(st.Uid), int(st.Gid)}
	}
	if err := GiveTree(tree, uid, gid); err != nil {
		t.Fatal(err)
	}
	for path, given := range map[string]bool{"tree": true, "tree/a": true, "tree/a/file": true, "tree/a/link": true, "outside": false, "tree/bpf": false, "tree/bpf/other": false} {
		if got := owner(filepath.Join(dir, path)); (got == [2]int{uid, gid}) != given {
			t.Errorf("%s is %v's, given: %v", path, got, given)
		}
	}
	late := filepath.Join(tree, "late")
	if err := os.WriteFile(late, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := GiveTree(tree, uid, gid); err != nil || owner(late) != [2]int{0, 0} {
		t.Errorf("root walked a tree that is another user's: %v, %v", owner(late), err)
	}
	if err := GiveTree(filepath.Join(dir, "none"), uid, gid); err == nil {
		t.Error("no error about a tree that is not there")
	}
}
