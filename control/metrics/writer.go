package metrics

import (
	"io"
	"strconv"
	"strings"
)

// chunk is how much a Writer gathers before it writes: a system call for each sample would cost more than all the rest.
const chunk = 128 << 10

// Writer writes samples family after family. The first error of what it writes to ends it; Flush tells.
type Writer struct {
	w   io.Writer
	buf []byte
	err error
}

// NewWriter makes a writer that gathers in buf, if it is large enough, and ends in w.
func NewWriter(w io.Writer, buf []byte) *Writer {
	if cap(buf) < 2*chunk {
		buf = make([]byte, 0, 2*chunk)
	}
	return &Writer{w: w, buf: buf[:0]}
}

// Family begins a family: all its samples come next.
func (w *Writer) Family(f *Family) {
	w.buf = append(w.buf, "# HELP "...)
	w.buf = append(w.buf, f.Name...)
	w.buf = append(w.buf, ' ')
	w.buf = append(w.buf, helpEscaper.Replace(f.Help)...)
	w.buf = append(w.buf, "\n# TYPE "...)
	w.buf = append(w.buf, f.Name...)
	w.buf = append(w.buf, ' ')
	w.buf = append(w.buf, f.Kind.String()...)
	w.buf = append(w.buf, '\n')
}

// Sample writes one number of f. labels are some that AppendLabel made, more is another one or empty.
func (w *Writer) Sample(f *Family, labels []byte, more string, value uint64) {
	w.buf = append(w.buf, f.Name...)
	w.buf = append(w.buf, '{')
	w.buf = append(w.buf, labels...)
	w.buf = append(w.buf, more...)
	w.buf = append(w.buf, '}', ' ')
	w.buf = strconv.AppendUint(w.buf, value, 10)
	w.buf = append(w.buf, '\n')
	if len(w.buf) >= chunk {
		w.flush()
	}
}

func (w *Writer) flush() {
	if w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// Flush writes the rest, and tells the first error.
func (w *Writer) Flush() error {
	w.flush()
	return w.err
}

// Buffer is what the writer has gathered in, for the next one.
func (w *Writer) Buffer() []byte { return w.buf[:0] }

// AppendLabel appends a label to others, with the comma that parts it from the next: the format allows one behind the last.
func AppendLabel(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, '=', '"')
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"', ',')
}

var helpEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
