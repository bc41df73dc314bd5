package config

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Reader reads a configuration again and again. It gives what [Load] gives, but decodes only the services whose text has changed since the
// last time: of ten thousand services with ten servers each, of which a tenth changed, that takes a sixth of the time.
//
// For that the file is cut at the items of its services list. Whatever is not plain about the cuts - something is wrong with the file, a
// warning is due, the list has anchors or aliases, a secret is in a file of its own, other files are included, it is not a block of its own lines - makes the whole be read by Load's way, which alone
// knows how to tell of it. The zero value is ready.
type Reader struct {
	last reading
}

// reading is what is remembered of a file.
type reading struct {
	conntrack Conntrack      // what services began from
	around    [2]string      // the file before and behind the services
	at        map[string]int // text of an item -> its number
	services  []Service
	texts     []string // of each
	lines     []int    // where each begins
}

// Load is [Load].
func (r *Reader) Load(path string) (*Config, []Diagnostic) { return load(path, r.read(parseFile)) }

// Parse is [Parse]. The services of the configuration that it returns share memory with those of former ones: nobody may change them.
func (r *Reader) Parse(file string, b []byte) (*Config, []Diagnostic) { return r.read(Parse)(file, b) }

// read is whole, or what is as good.
func (r *Reader) read(whole func(string, []byte) (*Config, []Diagnostic)) func(string, []byte) (*Config, []Diagnostic) {
	return func(file string, b []byte) (*Config, []Diagnostic) {
		if c := r.parse(file, b); c != nil {
			return c, nil
		}
		r.last = reading{}
		return whole(file, b)
	}
}

// parse returns nil if the file is not for cutting, or there is something to tell.
func (r *Reader) parse(file string, b []byte) *Config {
	if len(b) > MaxBytes || bytes.ContainsRune(b, '\r') {
		return nil
	}
	cut := cutServices(b)
	if len(cut.items) == 0 {
		return nil
	}
	if _, what := notText(b); what != "" {
		return nil
	}
	if countValues(b, maxValues) > maxValues {
		return nil
	}
	c := defaults()
	c.File = file
	d := &decoder{config: &c, items: map[string]Pos{}}
	root := d.document(cut.rest)
	if root == nil || valueOf(root, "include") != nil || !(measurer{}).ok(d, root) || !isKey(root, "services", cut.line) {
		return nil
	}
	if d.decodeConfig(root); len(d.diags) > 0 {
		return nil
	}
	for i := range c.keys {
		if c.keys[i].key == "services" {
			c.keys[i].at = Pos{cut.items[0].line - c.Pos.Line, cut.indent + 1}
		}
	}
	now := reading{conntrack: c.Conntrack, around: cut.around, at: make(map[string]int, len(cut.items)), texts: make([]string, len(cut.items)), lines: make([]int, len(cut.items))}
	if !r.services(d, cut, &now) {
		return nil
	}
	if d.check(); len(d.diags) > 0 {
		return nil
	}
	r.last = now
	return &c
}

// services decodes the items into d's configuration, or takes them over from the last one, and notes them in now. It reports false if that cannot be
// done item by item.
func (r *Reader) services(d *decoder, cut cutting, now *reading) bool {
	all := make([]Service, len(cut.items))
	usable := same(r.last.conntrack, d.config.Conntrack)
	if usable && r.last.around == cut.around {
		d.settled = make([]bool, len(all))
	}
	var p plain
	for i, item := range cut.items {
		Breathe(i, 16)
		path := "services[" + strconv.Itoa(i) + "]"
		now.lines[i] = item.line
		if was, ok := r.last.at[string(item.text)]; ok && usable {
			all[i], now.texts[i] = r.last.services[was], r.last.texts[was]
			now.at[now.texts[i]] = i
			if d.settled != nil {
				d.settled[i] = true
			}
			if lines := item.line - r.last.lines[was]; lines != 0 || was != i {
				all[i].move(lines, len(all[i].Path), path)
			}
			continue
		}
		text := string(item.text)
		now.texts[i] = text
		now.at[text] = i
		if namesSecret(text) {
			return false
		}
		list := p.parse(text, item.line)
		if list == nil {
			list = parseItem(d, text, item.line)
		}
		if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) != 1 || list.Column != cut.indent+1 || isNull(list.Content[0]) {
			return false
		}
		if decodeService(d, value{follow(list.Content[0]), path}, &all[i]); len(d.diags) > 0 {
			return false
		}
		all[i].once = new(byte)
	}
	d.config.Services, now.services = all, all
	return true
}

// parseItem is what the library makes of an item whose first line has a number: nil if it is not YAML by itself, or may not be decoded.
func parseItem(d *decoder, text string, line int) *yaml.Node {
	if strings.ContainsAny(text, "&*") {
		return nil
	}
	var doc yaml.Node
	if decodeYAML(yaml.NewDecoder(strings.NewReader(text)), &doc) != nil || len(doc.Content) != 1 {
		return nil
	}
	shift(doc.Content[0], line-1)
	if !(measurer{}).ok(d, doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

// namesSecret reports whether the text may name a file with a secret, which can change while the text does not.
func namesSecret(text string) bool {
	return slices.ContainsFunc(secretFiles, func(key string) bool { return strings.Contains(text, key) })
}

// isKey reports whether the mapping's key stands in a line and has no value. The line might be one of a text's.
func isKey(mapping *yaml.Node, key string, line int) bool {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if n := mapping.Content[i]; n.Value == key && n.Line == line && isNull(mapping.Content[i+1]) {
			return true
		}
	}
	return false
}

func shift(n *yaml.Node, lines int) {
	n.Line += lines
	for _, c := range n.Content {
		shift(c, lines)
	}
}

// move makes s stand so many lines further down, under another path. What s shares with its former self is not touched.
func (s *Service) move(lines, prefix int, path string) {
	s.Place.move(lines, prefix, path)
	s.Conntrack.Place.move(lines, prefix, path)
	if s.Persistence != nil {
		p := *s.Persistence
		p.Place.move(lines, prefix, path)
		s.Persistence = &p
	}
	if s.FullNAT != nil {
		f := *s.FullNAT
		f.Place.move(lines, prefix, path)
		s.FullNAT = &f
	}
	if s.Passive != nil {
		p := *s.Passive
		p.Place.move(lines, prefix, path)
		s.Passive = &p
	}
	check := s.Check
	s.Check = check.moved(lines, prefix, path)
	s.Backends = slices.Clone(s.Backends)
	for i := range s.Backends {
		b := &s.Backends[i]
		b.Place.move(lines, prefix, path)
		if b.Check == check {
			b.Check = s.Check
		} else {
			b.Check = b.Check.moved(lines, prefix, path)
		}
	}
}

// moved is a copy of c at another place.
func (c *Check) moved(lines, prefix int, path string) *Check {
	if c == nil {
		return nil
	}
	m := *c
	m.Place.move(lines, prefix, path)
	return &m
}

func (p *Place) move(lines, prefix int, path string) {
	if p.Pos == (Pos{}) {
		return // it is not in the file
	}
	p.Pos.Line += lines
	if p.Path[:prefix] != path {
		p.Path = path + p.Path[prefix:]
	}
}

// cutting is a file cut at the items of its services list.
type cutting struct {
	rest   []byte    // without the items: their lines are empty
	around [2]string // what is in front of the items, and behind them
	items  []item
	line   int // of its key
	indent int // spaces in front of an item
}

// item is one item's lines, comments behind it included.
type item struct {
	text []byte
	line int // of its first, from 1
}

// cutServices finds the list: after a line that says services: and no more, lines that begin with the same number of spaces and a dash, each
// with the lines below it that stand further in. It ends where a line begins in the first column. There are no items if the file is not
// so. An item that is YAML by itself, anchors aside, is the same one in its list: whatever it opened it has closed, and the next item's
// dash ends what need not be closed.
func cutServices(b []byte) (c cutting) {
	begin, line := 0, 1
	for ; ; line++ {
		end := bytes.IndexByte(b[begin:], '\n')
		if end < 0 {
			return cutting{}
		}
		text := b[begin : begin+end]
		begin += end + 1
		if string(bytes.TrimRight(text, " ")) == "services:" {
			break
		}
	}
	from, at := -1, begin
	c.line, c.indent = line, -1
	close := func(to int) {
		if from >= 0 {
			c.items[len(c.items)-1].text = b[from:to]
		}
	}
	for at < len(b) {
		end := len(b)
		if n := bytes.IndexByte(b[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		text := b[at:end]
		line++
		body := bytes.TrimLeft(text, " ")
		spaces := len(text) - len(body)
		dash := len(body) > 1 && body[0] == '-' && (body[1] == ' ' || body[1] == '\n')
		switch {
		case len(body) == 0 || body[0] == '\n' || body[0] == '#':
		case c.indent < 0 && !dash:
			return cutting{}
		case dash && (c.indent < 0 || spaces == c.indent):
			c.indent = spaces
			close(at)
			from = at
			c.items = append(c.items, item{line: line})
		case spaces == 0:
			close(at)
			c.leave(b, begin, at)
			return c
		case spaces <= c.indent:
			return cutting{}
		}
		at = end
	}
	close(at)
	c.leave(b, begin, at)
	return c
}

// leave notes what is left of b without what stands between from and to, but for its line ends.
func (c *cutting) leave(b []byte, from, to int) {
	if len(c.items) == 0 {
		return
	}
	c.around = [2]string{string(b[:from]), string(b[to:])}
	c.rest = slices.Clone(b[:from])
	c.rest = append(c.rest, bytes.Repeat([]byte{'\n'}, bytes.Count(b[from:to], []byte{'\n'}))...)
	c.rest = append(c.rest, b[to:]...)
}
