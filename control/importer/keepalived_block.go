package importer

// block is a line of keepalived.conf, a keyword with its arguments, and the lines between its braces if it has any.
type block struct {
	pos    Pos
	words  []string
	braces bool
	inside []*block
}

// key is the line's keyword.
func (b *block) key() string { return b.words[0] }

// arg is the n-th argument from 1, empty if there are fewer.
func (b *block) arg(n int) string {
	if n < len(b.words) {
		return b.words[n]
	}
	return ""
}

// on reads a switch of a server or checker, which keepalived takes alone for on, and with true, on, yes, false, off or no behind it. ok is false for any
// other word: keepalived ignores the line then.
func (b *block) on() (on, ok bool) {
	switch b.argOr(1, "on") {
	case "true", "on", "yes":
		return true, true
	case "false", "off", "no":
		return false, true
	}
	return false, false
}

// maxNesting is how deep blocks may stand in each other. keepalived's own go no deeper than four.
const maxNesting = 32

// blocks makes a tree of lines. Braces open and close wherever they stand: at the end of a line, or on one of their own.
func (s *scanner) blocks() []*block {
	root := &block{}
	open := []*block{root}
	for _, l := range s.lines {
		var b *block // whose words these are
		for i, w := range l.words {
			top := open[len(open)-1]
			switch {
			case !l.brace[i]:
				if b == nil {
					b = &block{pos: l.pos}
					top.inside = append(top.inside, b)
				}
				b.words = append(b.words, w)
			case w == "{":
				if b == nil && len(top.inside) > 0 && !top.inside[len(top.inside)-1].braces {
					b = top.inside[len(top.inside)-1] // of the line before
				}
				if b == nil || b.braces {
					s.errorf(l.pos, "{ belongs to nothing")
					return nil
				}
				if len(open) > maxNesting {
					s.errorf(l.pos, "blocks stand in each other more than %d deep", maxNesting)
					return nil
				}
				b.braces = true
				open = append(open, b)
				b = nil
			default:
				if len(open) == 1 {
					s.errorf(l.pos, "} closes nothing")
					return nil
				}
				open = open[:len(open)-1]
				b = nil
			}
		}
	}
	if len(open) > 1 {
		last := open[len(open)-1]
		s.errorf(last.pos, "%s: its { is not closed", quoted(last.key()))
		return nil
	}
	return root.inside
}
