package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxSecret is the length of the longest secret in a file of its own.
const maxSecret = 4096

// secretFiles are the keys that name such files.
var secretFiles = []string{"hash_seed_file", "send_file", "authorization_file"}

// secret sets to to what stands in the file that v names, from the directory of the file that does, less the end of its line, so that the secret need not stand in the configuration. Where
// no files are read, as with Parse, it stays empty.
func (d *decoder) secret(v value, to *string, limit int) {
	var name string
	before := d.errors
	if d.text(v, &name, 4096); d.errors > before || d.schema != nil || !d.reads {
		return
	}
	if !filepath.IsAbs(name) {
		from, _ := d.config.fileOf(v.pos().Line)
		name = filepath.Join(filepath.Dir(from), name)
	}
	f, err := os.Open(name)
	if err != nil {
		d.errorf(v.pos(), v.path, "%s: %v", printableText(name), cause(err))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		d.errorf(v.pos(), v.path, "%s: is no regular file", printableText(name))
		return
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+3))
	if err != nil {
		d.errorf(v.pos(), v.path, "%s: %v", printableText(name), cause(err))
		return
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case text == "" || len(text) > limit:
		d.errorf(v.pos(), v.path, "%s: a secret is 1 to %d bytes long", printableText(name), limit)
		return
	case info.Mode().Perm()&0o004 != 0:
		d.warnf(v.pos(), v.path, "everybody on this host can read %s: `chmod o-r %[1]s`", printableText(name))
	}
	*to = text
}
