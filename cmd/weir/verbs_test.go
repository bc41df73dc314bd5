package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weir/control/config"
)

// walk calls f for every command that a user can see or run.
func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, below := range c.Commands() {
		walk(below, f)
	}
}

// TestEveryCommandHasAnExample walks all commands: each has an example of itself or of one below it, and what examples say is right usage.
func TestEveryCommandHasAnExample(t *testing.T) {
	n := 0
	walk(commands(), func(c *cobra.Command) {
		if !c.Runnable() || c.Name() == "help" {
			return
		}
		n++
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("Short is %q: one sentence without its full stop", c.Short)
			}
			own := false
			for _, args := range examples(c.Example) {
				of, err := parse(args)
				if err != nil {
					t.Errorf("weir %s: %v", strings.Join(args, " "), err)
				}
				own = own || of == c.CommandPath() || strings.HasPrefix(of, c.CommandPath()+" ")
			}
			if !own {
				t.Errorf("no example of it:\n%s", c.Example)
			}
		})
	})
	if n < 25 {
		t.Errorf("saw %d commands, there must be more", n)
	}
}

// TestExamplesAreJudged is that a wrong one would be found.
func TestExamplesAreJudged(t *testing.T) {
	for _, args := range [][]string{{"lst"}, {"run"}, {"list", "--colour"}, {"list", "services"}, {"fdb", "add", "--vni", "x"}} {
		if of, err := parse(args); err == nil {
			t.Errorf("weir %s: taken for right usage of %s", strings.Join(args, " "), of)
		}
	}
}

// parse has a fresh tree judge a command line as Execute does before it runs anything, and says whose it is.
func parse(args []string) (of string, err error) {
	c, rest, err := commands().Find(args)
	if err != nil {
		return "", err
	}
	c.InitDefaultHelpFlag()
	if err = c.ParseFlags(rest); err == nil {
		err = c.ValidateRequiredFlags()
	}
	if err == nil {
		err = c.ValidateArgs(c.Flags().Args())
	}
	return c.CommandPath(), err
}

// shellWord is a word of an example, in single quotes or without.
var shellWord = regexp.MustCompile(`'[^']*'|[^\s']+`)

// examples are the arguments of all calls of weir in the text of an example, with pipes and redirections taken away.
func examples(text string) (all [][]string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			continue
		}
		var call []string
		end := func() {
			if len(call) > 0 && call[0] == "weir" {
				all = append(all, call[1:])
			}
			call = nil
		}
		skip := false
		for _, w := range shellWord.FindAllString(line, -1) {
			switch {
			case skip:
				skip = false
			case w == ">" || w == "<":
				skip = true
			case w == "|" || w == "&&" || w == "&" || w == ";":
				end()
			default:
				call = append(call, strings.Trim(w, "'"))
			}
		}
		end()
	}
	return all
}

// TestHelpSaysHowItEnds is that help ends with the exit codes, those of the command alone.
func TestHelpSaysHowItEnds(t *testing.T) {
	for _, x := range []struct {
		args      []string
		has, lack string
	}{
		{[]string{"--help"}, "  3  the configuration is invalid", "  7  "},
		{[]string{"check", "--help"}, "  3  the configuration is invalid", "  5  "},
		{[]string{"list", "--help"}, "  5  no daemon answers", "  3  "},
		{[]string{"fdb", "add", "--help"}, "  6  a right or capability", "  3  "},
		{[]string{"import", "ipvsadm", "--help"}, "  3  the configuration is invalid", "  5  "},
		{[]string{"completion", "--help"}, "  2  wrong usage", "  5  "},
	} {
		code, stdout, stderr := runIn(t, "", x.args)
		_, codes, ok := strings.Cut(stdout, "\nExit codes:\n")
		if code != 0 || stderr != "" || !ok || !strings.Contains(codes, x.has) || strings.Contains(codes, x.lack) {
			t.Errorf("weir %s: exit %d, must have %q and lack %q:\n%s%s", strings.Join(x.args, " "), code, x.has, x.lack, stdout, stderr)
		}
	}
}

// TestCompletion is what shells are offered, and that their own parsers take the scripts.
func TestCompletion(t *testing.T) {
	for _, x := range []struct {
		line string
		want []string
	}{
		{"com", []string{"completion"}},
		{"list -o ", []string{"table", "json", "ipvsadm"}},
		{"vxlan -o ", []string{"table", "json", "huawei"}},
		{"conns -o ", []string{"table", "json"}},
		{"check -c ", []string{"yaml", "yml"}}, // of files
		{"fdb a", []string{"add"}},
		{"completion ", []string{"bash", "fish", "zsh"}},
		{"conns --socket /nowhere --service ", nil}, // no daemon, nothing to offer
	} {
		code, stdout, _ := runIn(t, "", append([]string{"__complete"}, strings.Split(x.line, " ")...))
		var got []string
		for line := range strings.Lines(stdout) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); word != "" && word[0] != ':' {
				got = append(got, word)
			}
		}
		slices.Sort(got)
		slices.Sort(x.want)
		if code != 0 || !slices.Equal(got, x.want) {
			t.Errorf("weir %s<TAB>: exit %d, offers %q, want %q", x.line, code, got, x.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			code, stdout, stderr := runIn(t, "", []string{"completion", shell})
			if code != 0 || !strings.Contains(stdout, "__complete") {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(err)
			}
			file := filepath.Join(t.TempDir(), "weir")
			write(t, file, stdout)
			if said, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v\n%s", shell, err, said)
			}
		})
	}
	if code, _, stderr := runIn(t, "", []string{"completion", "tcsh"}); code != exitUsage || !strings.Contains(stderr, "tcsh") {
		t.Errorf("tcsh: exit %d: %s", code, stderr)
	}
}

// TestManualPages is that the pages have every command, flag and key, and that who reads manual pages finds no fault in them.
func TestManualPages(t *testing.T) {
	page := func(name string) string {
		code, stdout, stderr := runIn(t, "", []string{"man", name})
		if code != 0 || stderr != "" {
			t.Fatalf("man %s: exit %d: %s", name, code, stderr)
		}
		return stdout
	}
	program, file := page("weir"), page("weir.yaml")
	said := func(page, term string) bool { return strings.Contains(page, strings.ReplaceAll(term, "-", `\-`)) }
	walk(commands(), func(c *cobra.Command) {
		if !c.IsAvailableCommand() || c.Name() == "help" || !c.HasParent() {
			return
		}
		if !said(program, `.SS "`+c.CommandPath()) {
			t.Errorf("weir(8) lacks %s", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !said(program, `\fB--`+f.Name+`\fR`) {
				t.Errorf("weir(8) lacks --%s of %s", f.Name, c.CommandPath())
			}
		})
	})
	if strings.Contains(program, `"weir man`) {
		t.Error("weir(8) has the hidden command")
	}
	for _, key := range config.Keys() {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if !strings.Contains(file, `\fB`+strings.TrimSuffix(name, "[]")+`\fR`) {
			t.Errorf("weir.yaml(5) lacks %s", key)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"weir.8": program, "weir.yaml.5": file} {
		for _, reader := range [][]string{{"groff", "-man", "-Tutf8", "-ww", "-z"}, {"mandoc", "-Tlint", "-Wwarning"}} {
			t.Run(name+"/"+reader[0], func(t *testing.T) {
				path, err := exec.LookPath(reader[0])
				if err != nil {
					t.Skip(err)
				}
				write(t, filepath.Join(dir, name), text)
				complaints, _ := exec.Command(path, append(reader[1:], filepath.Join(dir, name))...).CombinedOutput()
				for line := range strings.Lines(string(complaints)) {
					if !strings.Contains(line, "missing date") { // of the commit, which a test's binary does not know
						t.Error(line)
					}
				}
			})
		}
	}
}

// emptyDaemon answers every view with nothing in it, and gives the arguments that lead a command to it.
func emptyDaemon(t *testing.T) (socket []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	daemon := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/config/diff":
			_, _ = io.WriteString(w, `{"changes": [{"op": "add"}]}`)
		case "/explain", "/status":
			_, _ = io.WriteString(w, `{}`)
		default:
			_, _ = io.WriteString(w, `[]`)
		}
	})}
	go func() { _ = daemon.Serve(l) }()
	t.Cleanup(func() { daemon.Close() })
	return []string{"--socket", path}
}

// TestFullDisk: what cannot be written has not been printed, and that is no success.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	socket := emptyDaemon(t)
	for _, line := range []string{"list", "list -o json", "list -o ipvsadm", "status", "conns", "explain tcp 198.18.0.2:1 198.18.9.9:80", "vxlan", "fdb", "config changes", "config diff"} {
		errs, err := os.Create(filepath.Join(t.TempDir(), "err"))
		if err != nil {
			t.Fatal(err)
		}
		was := [2]*os.File{os.Stdout, os.Stderr}
		os.Stdout, os.Stderr = full, errs
		code := run(append(strings.Fields(line), socket...))
		os.Stdout, os.Stderr = was[0], was[1]
		errs.Close()
		if said, _ := os.ReadFile(errs.Name()); code != exitFailed || !strings.Contains(string(said), "no space left") {
			t.Errorf("weir %s: exit %d, says %q", line, code, said)
		}
	}
}

// TestCaptureFile: a file that cannot be made is no fault of the daemon's.
func TestCaptureFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none", "a.pcapng")
	code, _, stderr := runIn(t, "", append([]string{"capture", "-w", file}, emptyDaemon(t)...))
	if want := "weir: open " + file + ": no such file or directory\n"; code != exitFailed || stderr != want {
		t.Errorf("exit %d, says %q, want %q", code, stderr, want)
	}
}
