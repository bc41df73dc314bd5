package demo

import (
	"fmt"
	"io"
	"strings"
)

// screen is where the demo is seen. Once a write fails nothing more is written, and whoever asks ok hears of it.
type screen struct {
	w     io.Writer
	color bool
	err   error
}

// Escape sequences of ECMA-48, SGR.
const (
	bold  = "1"
	cyan  = "36"
	green = "1;32"
	red   = "1;31"
)

func (s *screen) paint(style, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (s *screen) say(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, format, args...)
	}
}

// title begins step number n.
func (s *screen) title(n int, text string) {
	s.say("\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", n, text)))
}

// command shows a command as it is typed.
func (s *screen) command(args ...string) {
	s.say("     %s\n", s.paint(cyan, "$ weir "+strings.Join(args, " ")))
}

// show prints text indented.
func (s *screen) show(format string, args ...any) {
	for _, line := range strings.Split(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n") {
		s.say("     %s\n", strings.TrimRight(line, " "))
	}
}
