// Package demo shows weir at work on one machine: clients, a balancer and servers in network namespaces, real HTTP through a real AF_XDP
// data path, reloads under load. It checks everything that it shows.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a demo.
type Options struct {
	Out   io.Writer
	Color bool
	Wait  string // wait mode of the balancer's workers
	Keep  bool   // before the stop, wait for the end of Run's context
}

// demo is one run.
type demo struct {
	Options
	screen
	ctx context.Context
	bed *bed
	lb  *balancer
}

// step is one thing that is shown.
type step struct {
	title string
	run   func(*demo) error
}

// steps in the order in which they are shown; each relies on those before it.
var steps = []step{
	{"a network: a client, a balancer, three servers, in namespaces of this machine", (*demo).network},
	{"weir run: AF_XDP on both ports, VIPs bound and announced", (*demo).start},
	{"600 HTTP requests, weights 3:2:1", (*demo).spread},
	{"the same over IPv6, and datagrams round robin", (*demo).others},
	{"the tables, as ipvsadm shows them", (*demo).tables},
	{"8 downloads while the configuration is reloaded by SIGHUP, again and again", (*demo).reloads},
	{"a broken configuration is refused, and the old one keeps running", (*demo).refused},
	{"every packet accounted for", (*demo).accounts},
}

// limit is how long a demo may last. One takes some 5 seconds; what hangs must not hang for ever.
const limit = 2 * time.Minute

// Run shows the demo. It leaves nothing behind, whether it ends well, by an error or because ctx ends. Its error says what was not as it
// should be; without root it is EPERM.
func Run(ctx context.Context, o Options) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the demo makes network namespaces: run it as root: %w", unix.EPERM)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	d := &demo{Options: o, screen: screen{w: o.Out, color: o.Color}, ctx: limited}
	begun := time.Now()
	err = guard(d.steps)
	if err == nil && o.Keep {
		err = guard(func() error { return d.keep(ctx) })
	}
	interrupted := ctx.Err() != nil && err != nil
	if err == nil {
		d.title(len(steps)+1, "a clean stop")
		err = guard(d.stop)
	}
	cleaned := guard(d.close)
	switch {
	case interrupted:
		if err = errors.New("interrupted"); cleaned == nil {
			err = errors.New("interrupted; nothing is left behind")
		}
	case err != nil:
		if d.lb != nil {
			d.say("\n%s\n%s", d.paint(red, "The balancer's log:"), d.lb.log.String())
		}
	case cleaned == nil:
		took := ""
		if !o.Keep {
			took = fmt.Sprintf(", in %.0f s", time.Since(begun).Seconds())
		}
		d.say("\n%s\n", d.paint(green, "All of it as it should be"+took+". Nothing is left behind."))
		err = d.err
	}
	return errors.Join(err, cleaned)
}

// guard is f with a panic made an error, so that what is to be cleaned up is.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

func (d *demo) steps() error {
	for i, s := range steps {
		d.title(i+1, s.title)
		err := s.run(d)
		if err == nil {
			err = errors.Join(d.ctx.Err(), d.err)
		}
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, errors.Join(err, d.lb.alive()))
		}
	}
	return nil
}

// keep says how to look around and waits for ^C.
func (d *demo) keep(ctx context.Context) error {
	d.say("\n%s\n", d.paint(bold, "It stays up until ^C. To look around, as root:"))
	d.show(`the balancer, from anywhere:
  %[1]s status --socket %[2]s
  (list, conns, stats, rates, drops, ports, workers and reload likewise; its configuration is %[3]s)
requests, as the client:
  nsenter --net=/run/netns/%[4]s curl http://198.18.9.9/
what is on the servers' side of the balancer, seen from the switch:
  nsenter --net=/run/netns/%[6]s tcpdump -ni lb
addresses and programs of the balancer:
  ip -n %[5]s -d addr`, d.lb.exe, d.lb.socket, d.lb.config, d.bed.client.File, d.bed.lb.File, d.bed.fabric.File)
	select {
	case <-ctx.Done():
		return d.err
	case <-d.lb.ended:
		return d.lb.alive()
	}
}

// close removes everything, whatever state it is in.
func (d *demo) close() (err error) {
	if d.lb != nil {
		err = d.lb.close()
	}
	if d.bed != nil {
		err = errors.Join(err, d.bed.close())
	}
	return err
}
