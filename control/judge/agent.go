package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// AgentVariable names, in the environment of the first process of a user-mode-linux kernel, the directory with the scripts to play.
const AgentVariable = "WEIR_JUDGE"

const (
	scriptsFile = "scripts.json"
	logFile     = "log"
	logEnd      = "done" // the last line of the log

	atOnce  = 16 // scenarios; most of the time they wait
	patient = 800 * time.Millisecond
	tries   = 4
	tidying = 25 * time.Millisecond // in which the kernel ends what it said it would end at once: a timer tick, or a work queue
)

// Agent is the first process of a user-mode-linux kernel: it plays every script of dir into the kernel's IPVS, writes the recordings beside
// them, and halts the machine. It does not return.
func Agent(dir string) {
	log, err := os.Create(filepath.Join(dir, logFile))
	if err == nil {
		if err := agent(dir, log); err != nil {
			fmt.Fprintln(log, err)
		}
		fmt.Fprintln(log, logEnd)
		log.Close()
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1)
}

func agent(dir string, log *os.File) error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loadModules("veth", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_lblc", "ip_vs_lblcr", "ip_vs_dh", "ip_vs_sh",
		"ip_vs_mh", "ip_vs_nq", "ip_vs_ovf", "ip_vs_sed", "ip_vs_fo", "ipip", "ip6_tunnel", "ip_gre", "fou"); err != nil {
		return err
	}
	for key, value := range map[string]string{"net/ipv4/icmp_msgs_per_sec": "100000", "net/ipv4/icmp_msgs_burst": "100000"} {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, scriptsFile))
	if err != nil {
		return err
	}
	var scripts []Script
	if err := json.Unmarshal(b, &scripts); err != nil {
		return err
	}
	var wg sync.WaitGroup
	next := make(chan *Script)
	for range min(atOnce, len(scripts)) {
		wg.Go(func() {
			for s := range next {
				if err := record(s, dir); err != nil {
					fmt.Fprintf(log, "%s: %v\n", s.Name, err)
				}
			}
		})
	}
	for i := range scripts {
		next <- &scripts[i]
	}
	close(next)
	wg.Wait()
	return nil
}

// errLate is a scenario that the machine was too slow for: from here on timeouts may have come between that should not.
var errLate = errors.New("too late")

// errNoRoute is a kernel that says so, though every address of the bed has a route: seen of IPv6 once in some thousands of scenarios, on a busy machine,
// and not again when the same scenario is played once more.
var errNoRoute = fmt.Errorf("the kernel lost its routes: %w", errLate)

// record plays a script and writes what came of it.
func record(s *Script, dir string) error {
	var err error
	for try := range tries {
		var r *Recording
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread goes, and with it its namespaces
			r, err = playScript(s)
		}()
		<-done
		if last := try == tries-1; err == nil || last && errors.Is(err, errLate) { // then what there is, which holds
			return r.write(filepath.Join(dir, s.Name+".json"))
		}
		if !errors.Is(err, errLate) {
			return err
		}
	}
	return err
}

// processor is held while packets are sent: a scenario that waits lets others play, but one that plays is quick.
var processor sync.Mutex

func playScript(s *Script) (*Recording, error) {
	world, err := newWorld(s)
	if err != nil {
		return nil, err
	}
	processor.Lock()
	defer processor.Unlock()
	bed, err := newKernelBed(s)
	if err != nil {
		return nil, err
	}
	defer bed.close()
	p := &recorder{bed: bed, world: world, start: time.Now(), r: &Recording{Name: s.Name, Source: "user-mode-linux", Options: s.Options, Timeouts: s.Timeouts,
		MTU: map[string]int{"client": 1500, "server": 1500}, Services: s.Services}}
	for side, mtu := range s.MTU {
		p.r.MTU[side] = mtu
	}
	if p.r.Options == nil {
		p.r.Options = map[string]int{}
	}
	for i := range s.Ops {
		if err := p.op(&s.Ops[i]); err != nil {
			return p.r, fmt.Errorf("operation %d: %w", i, err)
		}
		for len(p.r.Ops) < len(p.r.Steps) {
			p.r.Ops = append(p.r.Ops, i)
		}
	}
	return p.r, nil
}

// recorder plays operations. Its time is a grid: a wait ends at a whole number of seconds after the wait before it, and between waits little
// time passes, so that no timeout ends near one; Generate chooses the timeouts by that.
type recorder struct {
	bed   *kernelBed
	world *world
	r     *Recording
	start time.Time
	grid  time.Duration // the latest wait's end, since start
	steps time.Duration // what a player lets pass since then
}

func (p *recorder) op(o *Op) error {
	if time.Since(p.start)-p.grid > patient {
		return errLate
	}
	switch o.Do {
	case DoEdit:
		if err := p.bed.ipvs.edit(o.Edit); err != nil {
			return err
		}
		p.world.passed() // with expire_nodest_conn, an edit may end connections
		p.step(Step{Edit: o.Edit})
		if o.Edit.RemoveBackend != nil || o.Edit.RemoveService != nil {
			time.Sleep(tidying)
		}
	case DoWait:
		p.wait(time.Duration(o.Seconds) * time.Second)
	default:
		again := p.world.again(o)
		for _, ip := range p.world.packets(o) {
			out, err := p.bed.play(o.Side, ip)
			if err != nil {
				return err
			}
			if o.Do == DoPacket && slices.ContainsFunc(out, noRoute) {
				return errNoRoute
			}
			p.world.saw(o, ip, out)
			s := Step{Send: sides[o.Side], Packet: fmt.Sprintf("%x", ip)}
			for _, x := range out {
				s.Expect = append(s.Expect, recorded(x, o.Side, ip))
			}
			p.step(s)
		}
		if again {
			time.Sleep(tidying)
		}
	}
	return nil
}

func noRoute(o Output) bool {
	h, err := headersOf(o.IP)
	return err == nil && h.proto == unix.IPPROTO_ICMPV6 && len(h.payload) > 1 && h.payload[0] == 1 && h.payload[1] == 0
}

func (p *recorder) step(s Step) {
	p.r.Steps = append(p.r.Steps, s)
	p.steps += stepTime
}

func (p *recorder) wait(d time.Duration) {
	p.world.passed()
	processor.Unlock()
	time.Sleep(time.Until(p.start.Add(p.grid + d)))
	processor.Lock()
	p.r.Steps = append(p.r.Steps, Step{WaitS: (d - p.steps - stepTime).Seconds()})
	p.grid += d
	p.steps = 0
}
