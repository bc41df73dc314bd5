package importer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// document is a configuration to be printed.
type document struct {
	origin   string // what it was made from, for the first line
	ports    []Port
	services []service
	timeouts []timeout
	comments []Note // what was left out of the whole
}

// timeout is one key of conntrack.timeouts.
type timeout struct {
	key     string
	seconds int
}

// yaml prints the document. yaml.v3 makes the text, so that it is quoted where YAML would read something else. It gets one service after the other,
// as it keeps in memory all that it was ever given.
func (d *document) yaml() []byte {
	var b bytes.Buffer
	root := mapping()
	root.add("version", number(1))
	root.Content[0].HeadComment = d.head()
	root.add("ports", d.portList())
	b.Write(encode(root))
	for i := range d.services {
		one := mapping()
		one.add("services", sequence(d.services[i:i+1], (*service).yaml))
		text := encode(one)
		if i > 0 {
			text = bytes.TrimPrefix(text, []byte("services:\n"))
		}
		b.Write(text)
	}
	if len(d.timeouts) > 0 {
		t := mapping()
		t.Style = yaml.FlowStyle
		for _, x := range d.timeouts {
			t.add(x.key, word(duration(x.seconds)))
		}
		c := mapping()
		c.add("timeouts", t)
		last := mapping()
		last.add("conntrack", c)
		b.Write(encode(last))
	}
	return b.Bytes()
}

func encode(n node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(n.Node); err != nil {
		panic(fmt.Sprintf("importer: our own nodes do not encode: %v", err))
	}
	return b.Bytes()
}

// head is the comment that the file begins with.
func (d *document) head() string {
	lines := []string{"Imported from " + d.origin + "."}
	if len(d.comments) > 0 {
		lines = append(lines, "Not carried over:")
		for _, l := range told(d.comments) {
			lines = append(lines, "  "+l)
		}
	}
	return comment(lines)
}

func (d *document) portList() node {
	ports := d.ports
	list := node{&yaml.Node{Kind: yaml.SequenceNode}}
	for _, p := range ports {
		list.Content = append(list.Content, p.yaml().Node)
	}
	if len(ports) == 0 {
		p := Port{"wan", "eth0"}.yaml()
		p.HeadComment = comment([]string{"The rules do not say which devices the traffic is on: put yours here."})
		list.Content = append(list.Content, p.Node)
	}
	return list
}

func (p Port) yaml() node {
	m := mapping()
	m.add("name", word(p.Name))
	m.add("interface", word(p.Interface))
	return m
}

func (s *service) yaml() node {
	m := mapping()
	m.HeadComment = comment(told(s.comments))
	if len(s.vips) == 1 {
		m.add("vip", word(s.vips[0].String()))
	} else {
		list := node{&yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}}
		for _, a := range s.vips {
			list.Content = append(list.Content, word(a.String()).Node)
		}
		m.add("vips", list)
	}
	m.add("port", number(int(s.port)))
	m.add("protocol", word(s.protocol))
	m.add("scheduler", word(s.scheduler))
	if len(s.flags) > 0 {
		m.add("flags", flowList(s.flags))
	}
	if s.onePacket {
		m.add("one_packet", word("true").plain("!!bool"))
	}
	if s.persistence != nil {
		m.add("persistence", s.persistence.yaml(s.vips[0].Is6()))
	}
	forward := s.forward()
	if forward != "" {
		m.add("forward", word(forward))
	}
	if s.check != nil {
		m.add("check", s.check.yaml())
	}
	if s.onDown != "" {
		m.add("on_down", word(s.onDown))
	}
	if s.inhibit {
		m.add("inhibit_on_failure", word("true").plain("!!bool"))
	}
	if len(s.backends) > 0 {
		m.add("backends", sequence(s.backends, func(b *backend) node { return b.yaml(s, forward == "") }))
	}
	return m
}

// forward is how all backends are reached, or nothing if they differ.
func (s *service) forward() string {
	for _, b := range s.backends {
		if b.forward != s.backends[0].forward {
			return ""
		}
	}
	if len(s.backends) == 0 {
		return ""
	}
	return s.backends[0].forward
}

func (p *persistence) yaml(v6 bool) node {
	m := mapping()
	m.Style = yaml.FlowStyle
	m.add("timeout", word(duration(p.seconds)))
	if p.prefix != 0 {
		key := "prefix"
		if v6 {
			key = "prefix6"
		}
		m.add(key, number(p.prefix))
	}
	return m
}

func (b *backend) yaml(s *service, forward bool) node {
	m := mapping()
	m.Style = yaml.FlowStyle
	m.HeadComment = comment(told(b.comments))
	m.add("address", word(b.address.String()))
	if b.forward == "nat" && b.port != 0 {
		m.add("port", number(int(b.port)))
	}
	m.add("weight", number(b.weight))
	if b.upper != 0 {
		m.add("upper_threshold", number(b.upper))
	}
	if b.lower != 0 {
		m.add("lower_threshold", number(b.lower))
	}
	if forward {
		m.add("forward", word(b.forward))
	}
	if b.tunnelPort != 0 {
		m.add("tunnel_port", number(int(b.tunnelPort)))
	}
	if b.checksum {
		m.add("tunnel_checksum", word("true").plain("!!bool"))
	}
	if b.backup {
		m.add("backup", word("true").plain("!!bool"))
	}
	switch {
	case b.unchecked:
		m.add("check", word("none"))
	case b.check != nil:
		m.add("check", b.check.yaml())
	}
	return m
}

// duration is seconds as the configuration writes them.
func duration(seconds int) string { return strconv.Itoa(seconds) + "s" }

// node is a YAML node that is easily built.
type node struct{ *yaml.Node }

func mapping() node { return node{&yaml.Node{Kind: yaml.MappingNode}} }

func (n node) add(key string, v node) {
	n.Content = append(n.Content, word(key).Node, v.Node)
}

// word is a text; SetString has yaml.v3 quote it where it would be read as something else.
func word(s string) node {
	n := &yaml.Node{}
	n.SetString(s)
	if strings.Contains(s, ":") {
		n.Style = yaml.DoubleQuotedStyle // an IPv6 address: in braces a colon would end it for some readers
	}
	return node{n}
}

// flowList is words in brackets.
func flowList(words []string) node {
	list := node{&yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}}
	for _, w := range words {
		list.Content = append(list.Content, word(w).Node)
	}
	return list
}

func number(n int) node { return word(strconv.Itoa(n)).plain("!!int") }

// plain gives n's text as what tag says, without quotes.
func (n node) plain(tag string) node {
	n.Tag, n.Style = tag, 0
	return n
}

func sequence[T any](all []T, each func(*T) node) node {
	list := node{&yaml.Node{Kind: yaml.SequenceNode}}
	for i := range all {
		list.Content = append(list.Content, each(&all[i]).Node)
	}
	return list
}

// told are notes as lines of a comment, in the order of the input.
func told(notes []Note) (lines []string) {
	sortNotes(notes)
	for _, n := range notes {
		lines = append(lines, n.Pos.String()+": "+n.Message)
	}
	return lines
}

// comment is lines as a comment. What an input holds must not end it.
func comment(lines []string) string {
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("# " + strings.Map(printable, l))
	}
	return b.String()
}

// printable keeps what a terminal, or YAML, does not take for text out of comments and messages.
func printable(r rune) rune {
	if !unicode.IsPrint(r) || r == utf8.RuneError {
		return '?'
	}
	return r
}
