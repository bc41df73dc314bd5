package importer

import (
	"fmt"
	"slices"
	"strings"
)

// option is one of ipvsadm's, as its manual lists them.
type option struct {
	long  string
	short byte
	arg   argument
}

// argument is what follows an option.
type argument uint8

const (
	none     argument = iota
	required          // the next word, whatever it looks like
	optional          // the next word unless it begins with a dash
	three             // three words (--set)
)

var ipvsadmOptions = []option{
	// commands
	{"add-service", 'A', none}, {"edit-service", 'E', none}, {"delete-service", 'D', none}, {"clear", 'C', none}, {"restore", 'R', none},
	{"save", 'S', none}, {"add-server", 'a', none}, {"edit-server", 'e', none}, {"delete-server", 'd', none}, {"list", 'L', none},
	{"list", 'l', none}, {"zero", 'Z', none}, {"set", 0, three}, {"start-daemon", 0, required}, {"stop-daemon", 0, required},
	{"help", 'h', none}, {"version", 'v', none},
	// what they are about
	{"tcp-service", 't', required}, {"udp-service", 'u', required}, {"sctp-service", 0, required}, {"fwmark-service", 'f', required},
	{"ipv6", '6', none}, {"scheduler", 's', required}, {"persistent", 'p', optional}, {"netmask", 'M', required}, {"pe", 0, required},
	{"sched-flags", 'b', required}, {"ops", 'o', none}, {"real-server", 'r', required}, {"gatewaying", 'g', none}, {"ipip", 'i', none},
	{"masquerading", 'm', none}, {"tun-type", 0, required}, {"tun-port", 0, required}, {"tun-nocsum", 0, none}, {"tun-csum", 0, none},
	{"tun-remcsum", 0, none}, {"weight", 'w', required}, {"u-threshold", 'x', required}, {"l-threshold", 'y', required},
	// of the synchronization daemon and of lists, which are noted and no more
	{"mcast-interface", 0, required}, {"mcast-group", 0, required}, {"mcast-port", 0, required}, {"mcast-ttl", 0, required},
	{"sync-maxlen", 0, required}, {"syncid", 0, required}, {"connection", 'c', none}, {"timeout", 0, none}, {"daemon", 0, none},
	{"stats", 0, none}, {"rate", 0, none}, {"exact", 0, none}, {"thresholds", 0, none}, {"persistent-conn", 0, none},
	{"tun-info", 0, none}, {"nosort", 0, none}, {"sort", 0, none}, {"numeric", 'n', none},
}

// commands are the options of which each line has one, and the options that may stand with it.
var commands = map[string][]string{
	"add-service": serviceOptions, "edit-service": serviceOptions, "delete-service": virtual, "clear": nil, "restore": nil,
	"save": {"numeric"}, "add-server": serverOptions, "edit-server": serverOptions, "delete-server": append([]string{"real-server"}, virtual...),
	"list": nil, "zero": virtual, "set": nil, "start-daemon": daemonOptions, "stop-daemon": daemonOptions, "help": nil, "version": nil,
}

var (
	virtual        = []string{"tcp-service", "udp-service", "sctp-service", "fwmark-service", "ipv6"}
	serviceOptions = append([]string{"scheduler", "persistent", "netmask", "pe", "sched-flags", "ops"}, virtual...)
	serverOptions  = append([]string{"real-server", "gatewaying", "ipip", "masquerading", "tun-type", "tun-port", "tun-nocsum", "tun-csum",
		"tun-remcsum", "weight", "u-threshold", "l-threshold"}, virtual...)
	daemonOptions = []string{"mcast-interface", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "syncid"}
)

// line is one command: its name, and what was given with it by long names.
type line struct {
	command string
	given   map[string][]string
}

// has reports whether the option was given.
func (l *line) has(name string) bool { _, ok := l.given[name]; return ok }

// value is the option's argument; empty if it was not given, or has none.
func (l *line) value(name string) string {
	if v := l.given[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// parseLine takes a line apart as ipvsadm does.
func parseLine(words []string) (*line, error) {
	l := &line{given: map[string][]string{}}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		name, attached, hasAttached := "", "", false
		var opts []*option
		switch {
		case strings.HasPrefix(w, "--"):
			name, attached, hasAttached = strings.Cut(w[2:], "=")
			o := findOption(func(o *option) bool { return o.long == name })
			if o == nil {
				return nil, fmt.Errorf("unknown option %s", quoted("--"+name))
			}
			opts = append(opts, o)
		case len(w) > 1 && w[0] == '-':
			// Short options may stand together, and the argument of the last may stand with it: -srr, -gw3.
			for i := 1; i < len(w); i++ {
				o := findOption(func(o *option) bool { return o.short == w[i] })
				if o == nil {
					return nil, fmt.Errorf("unknown option %s", quoted("-"+w[i:i+1]))
				}
				opts = append(opts, o)
				if o.arg != none && i+1 < len(w) {
					attached, hasAttached = strings.TrimPrefix(w[i+1:], "="), true
					break
				}
			}
		default:
			return nil, fmt.Errorf("unexpected argument %s", quoted(w))
		}
		for n, o := range opts {
			last := n == len(opts)-1
			var values []string
			switch {
			case hasAttached && last && o.arg == none:
				return nil, fmt.Errorf("--%s takes no argument", o.long)
			case hasAttached && last:
				values = []string{attached}
			case o.arg == optional && (len(words) == 0 || strings.HasPrefix(words[0], "-")):
			case o.arg == none:
			default:
				values = words[:min(1, len(words))]
				words = words[len(values):]
			}
			if o.arg == three && len(values) == 1 {
				more := words[:min(2, len(words))]
				values, words = append(slices.Clone(values), more...), words[len(more):]
			}
			if o.arg == required && len(values) == 0 || o.arg == three && len(values) < 3 {
				return nil, fmt.Errorf("--%s: its argument is missing", o.long)
			}
			if _, isCommand := commands[o.long]; isCommand {
				if l.command != "" {
					return nil, fmt.Errorf("--%s and --%s: a line is one command", l.command, o.long)
				}
				l.command = o.long
			}
			if l.has(o.long) {
				return nil, fmt.Errorf("--%s is given twice", o.long)
			}
			l.given[o.long] = values
		}
	}
	if l.command == "" {
		return nil, fmt.Errorf("no command: a rule begins with -A or -a")
	}
	return l, l.check()
}

// check refuses options that do not go with the command.
func (l *line) check() error {
	if l.command == "list" {
		return nil // changes nothing, whatever it is to show
	}
	for _, o := range ipvsadmOptions {
		if l.has(o.long) && o.long != l.command && !slices.Contains(commands[l.command], o.long) {
			return fmt.Errorf("--%s does not go with --%s", o.long, l.command)
		}
	}
	return nil
}

func findOption(match func(*option) bool) *option {
	for i := range ipvsadmOptions {
		if match(&ipvsadmOptions[i]) {
			return &ipvsadmOptions[i]
		}
	}
	return nil
}

// quoted is text of the input in a message: a file may hold anything.
func quoted(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:60], ""))
	}
	return fmt.Sprintf("%q", s)
}
