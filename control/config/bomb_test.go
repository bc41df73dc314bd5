package config

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// bombs are files within the size allowed that are made to cost a reader time or memory.
var bombs = map[string]func() []byte{
	"values":        func() []byte { return fill("version: 1\nports: [", "a,", "]\n") },
	"nulls":         func() []byte { return fill("version: 1\nports: [", "~,", "]\n") },
	"items":         func() []byte { return fill("version: 1\nports:\n", "-\n", "") },
	"keys":          func() []byte { return fill("version: 1\n", "a: 1\n", "") },
	"flow keys":     func() []byte { return fill("version: 1\nports: {", "a: 1,", "}\n") },
	"empty maps":    func() []byte { return fill("version: 1\nports: [", "{},", "]\n") },
	"empty lists":   func() []byte { return fill("version: 1\nports: [", "[],", "]\n") },
	"depth":         func() []byte { return fill("version: 1\nports: ", "[", "") },
	"block depth":   func() []byte { return fill("version: 1\nports:\n", "- ", "a\n") },
	"maps in depth": func() []byte { return fill("version: 1\nports: ", "{a: ", "") },
	"aliases":       func() []byte { return fill("version: 1\nrow: &a x\nports: [", "*a,", "]\n") },
	"anchors":       func() []byte { return fill("version: 1\nports: [", "&a x,", "]\n") },
	"comments":      func() []byte { return fill("version: 1\n", "#\n", "ports: 7\n") },
	"doubling": func() []byte {
		var b bytes.Buffer
		b.WriteString("version: 1\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
		for i := 1; i < 60; i++ {
			fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
		}
		return b.Bytes()
	},
	"one long text": func() []byte { return fill("version: 1\nports: \"", "x", "\"\n") },
	"documents":     func() []byte { return fill("version: 1\n", "---\n", "") },
	"tags":          func() []byte { return fill("version: 1\nports: [", "!a x,", "]\n") },
	"too large":     func() []byte { return append(fill("version: 1\nports: [", "a,", "]\n"), make([]byte, MaxBytes)...) },
}

// fill is as much of the middle as fits into the largest file.
func fill(head, middle, tail string) []byte {
	n := (MaxBytes - len(head) - len(tail)) / len(middle)
	return []byte(head + strings.Repeat(middle, n) + tail)
}

const bombEnv = "WEIR_CONFIG_BOMB"

// TestBombs: each is refused soon and within 256 MiB, in a process of its own that does nothing else.
func TestBombs(t *testing.T) {
	if file := os.Getenv(bombEnv); file != "" {
		if _, diags := Load(file); !HasErrors(diags) {
			t.Error("no error")
		} else {
			fmt.Println("told:", diags[0].String())
			status, _ := os.ReadFile("/proc/self/status")
			_, peak, _ := strings.Cut(string(status), "VmHWM:")
			fmt.Println("peak:", strings.Fields(peak)[0]) // getrusage would tell of the process that started this one, too
		}
		return
	}
	if slower > 1 {
		t.Skip("the race detector takes the memory that is measured")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip(err)
	}
	const limit = 3 * time.Second // a second is the aim; half of one is what it takes, and some machines are slow
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			file := files(t, map[string]string{"weir.yaml": string(bomb())})
			cmd := exec.Command(os.Args[0], "-test.run=^TestBombs$")
			cmd.Env = append(os.Environ(), bombEnv+"="+file)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%.2000s", err, out)
			}
			_, text, _ := strings.Cut(string(out), "peak: ")
			kib, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				t.Fatal(err)
			}
			took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			t.Log(took, kib>>10, "MiB", strings.SplitN(string(out), "\n", 2)[0])
			if took > limit || kib>>10 > 256 {
				t.Errorf("refused after %v of processor time, with %d MiB", took, kib>>10)
			}
		})
	}
}

// TestCountValues: what counts without parsing agrees, about, with the parser's own count of files that people write.
func TestCountValues(t *testing.T) {
	for _, pattern := range []string{"../../configs/*.yaml", "testdata/valid/*.yaml"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			b := contents(t, name)
			d := &decoder{config: new(Config), items: map[string]Pos{}}
			root := d.document(b)
			var count func(n *yaml.Node) int
			count = func(n *yaml.Node) int {
				all := 1
				for _, c := range n.Content {
					all += count(c)
				}
				return all
			}
			want, got := count(root), countValues(b, 1<<30)
			if got < want*7/10 || got > want*12/10 {
				t.Errorf("%s: %d values, counted %d", name, want, got)
			}
		}
	}
	if got := countValues([]byte("a: 'x, y: [' # b: c,\nd: \"\\\", e: f\"\n"), 100); got != 4 {
		t.Errorf("quotes and comments: %d values", got)
	}
}
