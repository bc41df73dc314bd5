package testnet

import (
	"bytes"
	"os/exec"
	"slices"
	"sync"
)

// Cmd is an exec.Cmd that runs in a namespace. Only the namespace of the network is another: unlike under `ip netns exec`, mounts are the
// caller's, so a bpffs and what is pinned there stay in sight. One that still runs when the network is closed is killed.
type Cmd struct {
	*exec.Cmd
	space *Space
	once  sync.Once
	err   error
}

// Command prepares a program to run in the namespace. Set Stdout, Env and the like before it is started.
func (s *Space) Command(name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.Command(name, args...), space: s}
}

// Start starts the program. The child gets the namespace of the thread that forks it.
func (c *Cmd) Start() error {
	n := c.space.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errClosed
	}
	if err := c.space.Exec(c.Cmd.Start); err != nil {
		return err
	}
	n.commands = append(n.commands, c)
	return nil
}

// Wait waits for the program's end. It may be called more than once, also by several goroutines.
func (c *Cmd) Wait() error {
	c.once.Do(func() {
		c.err = c.Cmd.Wait()
		n := c.space.net
		n.mu.Lock()
		defer n.mu.Unlock()
		n.commands = slices.DeleteFunc(n.commands, func(other *Cmd) bool { return other == c })
	})
	return c.err
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is what the program wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var b bytes.Buffer
	c.Stdout = &b
	err := c.Run()
	return b.Bytes(), err
}

// CombinedOutput is what the program wrote to its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return b.Bytes(), err
}

// end kills the program, if it still runs, and reaps it.
func (c *Cmd) end() {
	_ = c.Process.Kill()
	_ = c.Wait()
}
