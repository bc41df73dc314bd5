package control

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/handover"
	"weir/dataplane"
)

// A takeover, as the former process sees it. Whose the packets are is agreed on in two steps, as each of both may die at any instant:
//
//	former                                  successor
//	           <--- (connects)
//	offer      --->                         compiles, maps, opens nothing: the former works
//	           <--- ready
//	(its workers stop)
//	state      --->                         makes it its own; touches neither rings nor table
//	           <--- prepared
//	commit     --->                         (its workers start)
//	           <--- forwarding
//	farewell   --->
//
// Before commit the former process goes on as if nothing had been, whatever becomes of the other: what it had stopped it starts again. After commit it never
// touches rings or table again. Should the successor die then before it forwards, what it leaves is what any weir leaves that was killed; so
// the former process begins anew, as after a crash. If the former dies after the state, the successor goes on, for it has everything; before that
// it has nothing that is worth more than what a crash leaves. A successor believes in a death only if the kernel says so: see taking.go.

// Limits of a takeover.
const (
	offerTime  = 5 * time.Second // to send or await an offer
	readyTime  = time.Minute     // for the successor to compile, while the former process works
	switchTime = 2 * time.Second // for the successor to make the state its own, while nobody works
	firstTime  = 5 * time.Second // for its workers to start
)

// readyMessage is what a successor says of itself.
type readyMessage struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Managed bool   `json:"managed,omitempty"` // it talks to a service manager
}

// nothing is the body of a message whose kind says it all.
type nothing struct{}

// errManaged is why a service's successor must be its own child: the manager would take another for a stranger, and end the service.
var errManaged = errors.New("it is a service of systemd: send it SIGUSR2 instead (systemctl kill -s USR2 --kill-whom=main weir), and it begins the successor itself")

// errTakeover is why a second one is refused.
var errTakeover = errors.New("another takeover is under way")

// serveTakeover is asked by a successor. The answer is the conversation.
func (c *Control) serveTakeover(w http.ResponseWriter, r *http.Request) {
	version, ok := handover.Version(r)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	switch {
	case local == nil || local.Network() != "unix":
		refuse(w, http.StatusForbidden, errors.New("a takeover goes over the admin socket alone"))
		return
	case !ok:
		refuse(w, http.StatusBadRequest, errors.New("this is for `weir run --takeover`"))
		return
	case version != takeoverVersion:
		refuse(w, http.StatusConflict, fmt.Errorf("the takeover of the one has version %d, of the other %d: do a restart, which keeps connections as well", version, takeoverVersion))
		return
	case !c.giving.CompareAndSwap(false, true):
		refuse(w, http.StatusConflict, errTakeover)
		return
	}
	defer c.giving.Store(false)
	conn, err := handover.Accept(w, version)
	if err != nil {
		c.log.Warn("takeover", "kind", "takeover", "err", err)
		return
	}
	defer conn.Close()
	peer, err := conn.Peer()
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = fmt.Errorf("it is asked for by user %d: only root and user %d may", peer.Uid, os.Geteuid())
	}
	alive := -1
	if err == nil {
		if alive, err = unix.PidfdOpen(int(peer.Pid), 0); err == nil {
			defer unix.Close(alive)
		} else {
			err = fmt.Errorf("pidfd_open of pid %d: %w (is it in another PID namespace?)", peer.Pid, err) // then nobody could end it if it got stuck
		}
	}
	if err == nil {
		err = c.give(conn, alive)
	}
	if err != nil {
		conn.Abort(err)
		c.log.Warn("takeover refused, or given up: this process goes on", "kind", "takeover", "err", err)
	}
}

// give is the conversation up to the commit, and beyond, with a process of which alive is a pidfd. An error is before it: everything is as it was.
func (c *Control) give(conn *handover.Conn, alive int) error {
	var generations []uint32
	var err error
	if stuck := c.do(func() { generations, err = c.begin(conn) }); stuck != nil {
		return stuck
	}
	if err == nil {
		var ready readyMessage
		if _, err = conn.Receive(readyTime, "ready", &ready); err == nil && c.options.Manager.Present() && !ready.Managed {
			err = errManaged
		}
		if err == nil {
			stuck := c.do(func() { err = c.surrenderTo(conn, alive, ready, generations) })
			if err = errors.Join(stuck, err); err == nil {
				return nil
			}
		}
	}
	thawed := c.do(c.thaw)
	for errors.Is(thawed, ErrStuck) { // else reloads would be refused for ever
		thawed = c.do(c.thaw)
	}
	return errors.Join(err, thawed)
}

// begin makes the offer.
func (c *Control) begin(conn *handover.Conn) (generations []uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.giveable(); err != nil {
		return nil, err
	}
	for _, r := range c.ports.rings {
		generations = append(generations, r.queue.Generation())
	}
	o, files, err := c.offer()
	defer handover.Close(files)
	if err != nil {
		return nil, err
	}
	c.frozen = true
	c.log.Info("a successor asks to take over", "kind", "takeover")
	return generations, conn.Send(offerTime, "offer", o, files...)
}

// thaw ends what begin began.
func (c *Control) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		return
	}
	c.frozen = false
	c.state.last = nil // the successor may have written down its own
	c.state.write(c.reg.legend())
}

// surrenderTo stops the workers and hands over. Control's goroutine alone does it, and nothing else meanwhile. Requests that end connections are waited
// for, and later ones wait.
func (c *Control) surrenderTo(conn *handover.Conn, alive int, ready readyMessage, generations []uint32) error {
	c.cutting.Lock()
	defer c.cutting.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulse.now()
	begun, stopped := time.Now(), dataplane.Monotonic()
	all(c.runners, (*dataplane.Runner).Stop)
	s, err := c.surrender(stopped, generations)
	left := func() time.Duration { return switchTime - time.Since(begun) }
	if err == nil {
		err = conn.Send(left(), "state", s)
	}
	if err == nil {
		_, err = conn.Receive(left(), "prepared", &nothing{})
	}
	if err != nil {
		conn.Abort(err) // before we work again: or it might believe us dead
	} else {
		err = conn.Send(time.Second, "commit", nothing{}) // one that fails was not read: the other end is closed, or its buffer full
	}
	if err != nil {
		all(c.runners, (*dataplane.Runner).Start)
		return fmt.Errorf("after %v without a worker: %w", time.Since(begun).Round(time.Microsecond), err)
	}
	if _, err := conn.Receive(firstTime, "forwarding", &nothing{}); err != nil {
		return c.reclaim(alive, err)
	}
	c.handed = true
	close(c.left)
	if l, ok := c.listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	_ = c.listener.Close()                           // what is still to be accepted is the successor's to answer
	c.notified(c.options.Manager.MainPID(ready.PID)) // before it says anything itself: who is not the main process is not listened to
	select {
	case <-c.options.Reload: // it came after the successor had read the file
		_ = unix.PidfdSendSignal(alive, unix.SIGHUP, nil, 0)
	default:
	}
	_ = conn.Send(time.Second, "farewell", nothing{})
	c.log.Info("handed over", "kind", "takeover", "to", ready.PID, "version", ready.Version, "took", time.Since(begun).Round(time.Microsecond))
	return nil
}

// reclaim is what is left if the successor had everything and does not work: it may have touched what was ours, so this process begins anew. It waits for
// the other's end, as with that its hold on the table ends: a little later than its connection, if it ended by itself.
func (c *Control) reclaim(alive int, why error) error {
	c.log.Error("the successor does not forward: this process begins anew, as after a crash", "kind", "takeover", "err", why)
	limit := time.Second
	if !errors.Is(why, handover.ErrGone) {
		_ = unix.PidfdSendSignal(alive, unix.SIGKILL, nil, 0)
		limit = firstTime
	}
	if !ended(alive, limit) {
		c.log.Error("the successor neither forwards nor ends", "kind", "takeover")
	}
	c.handed = true // whatever comes of it, nothing is ours
	close(c.left)
	c.broken = errors.New("takeover: the successor died")
	if c.options.Again != nil {
		c.broken = errors.Join(c.broken, spread(&c.cores, c.options.Again))
	}
	return nil
}

// ended waits for the end of the process of a pidfd, and reports false if that does not come within limit.
func ended(pidfd int, limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll(fds, int(max(time.Until(end), 0).Milliseconds()))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// all calls f for each runner, all at once.
func all(runners []*dataplane.Runner, f func(*dataplane.Runner)) {
	var group sync.WaitGroup
	for _, r := range runners {
		group.Go(func() { f(r) })
	}
	group.Wait()
}

// upgrade begins a successor of this process. What becomes of it the log says, its own and ours.
func (c *Control) upgrade() {
	switch {
	case c.giving.Load():
		c.log.Warn("upgrade", "kind", "takeover", "err", errTakeover)
	case c.options.Successor == nil:
		c.log.Warn("upgrade", "kind", "takeover", "err", errors.ErrUnsupported)
	default:
		if err := spread(&c.cores, c.options.Successor); err != nil {
			c.log.Error("upgrade: this process goes on", "kind", "takeover", "err", err)
		}
	}
}
