package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kernel is a user-mode-linux kernel that can be booted.
type Kernel struct {
	program string
	agent   string // the first process: a program that calls Agent
}

// FindKernel finds Debian's; the error says what is missing. agent is a program that calls [Agent] when [AgentVariable] is set.
func FindKernel(agent string) (*Kernel, error) {
	program, err := exec.LookPath("linux.uml")
	if err != nil {
		return nil, errors.New("no linux.uml here (Debian's package user-mode-linux)")
	}
	if modules, err := filepath.Glob(filepath.Join(moduleDirs, "*", "modules.dep")); err != nil || len(modules) == 0 {
		return nil, fmt.Errorf("no modules in %s (Debian's package user-mode-linux)", moduleDirs)
	}
	return &Kernel{program, agent}, nil
}

// Record boots the kernel, plays the scripts into its IPVS, and leaves the recordings in dir, which must be empty. What the machine was
// too slow for at the end of a script is missing. One that could not be played has no recording; the error then says why, and comes beside the
// recordings of the others.
func (k *Kernel) Record(ctx context.Context, scripts []Script, dir string) (recordings []*Recording, err error) {
	b, err := json.Marshal(scripts)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, scriptsFile), b, 0o644)
	}
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, k.program, "mem=768M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "init="+k.agent,
		"con=null", "con0=null,fd:2", "quiet", AgentVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	failed := cmd.Run() // no verdict: some of these kernels abort when all is written and they halt
	log, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil {
		return nil, fmt.Errorf("%s: the agent did not run: %w\n%s", k.program, errors.Join(failed, err), said.Bytes())
	}
	for i := range scripts {
		r, err := read(filepath.Join(dir, scripts[i].Name+".json"))
		switch {
		case err == nil:
			recordings = append(recordings, r)
		case !errors.Is(err, fs.ErrNotExist):
			return recordings, err
		}
	}
	text, ended := strings.CutSuffix(string(log), logEnd+"\n")
	if !ended {
		return recordings, fmt.Errorf("%s: the agent ended too early: %v: %s\n%s", k.program, failed, text, said.Bytes())
	}
	if text != "" {
		return recordings, fmt.Errorf("in the kernel: %s", strings.TrimSpace(text))
	}
	return recordings, nil
}
