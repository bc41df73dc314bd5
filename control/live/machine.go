package live

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"weir/control/host"
)

// Machine is what does not belong to a network namespace.
type Machine struct {
	Kernel    string // uname -r
	Available uint64 // bytes of memory, MemAvailable of /proc/meminfo; 0: unknown
	Memlock   uint64 // bytes that may be locked (RLIMIT_MEMLOCK); unlimited for who has CAP_IPC_LOCK
	Root      string // of the file system that /proc and /sys are looked for in; empty: the machine's own
}

// ThisMachine is the one that we run on.
func ThisMachine() Machine {
	m := Machine{Memlock: unix.RLIM_INFINITY}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "MemAvailable:" {
				kib, _ := strconv.ParseUint(f[1], 10, 64)
				m.Available = kib << 10
			}
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if unix.Capget(&hdr, &caps[0]) == nil && caps[0].Effective>>unix.CAP_IPC_LOCK&1 == 0 {
		var limit unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
			m.Memlock = limit.Cur
		}
	}
	return m
}

// machine looks at kernel, memory and processors.
func (x *examination) machine() {
	x.kernel()
	if !x.Running {
		x.memory()
	}
	x.processors()
	x.neighbours()
}

// Kernels, and what needs them: docs/hardware.md.
var (
	kernelLeast  = [2]int{5, 15} // bpf_link of XDP that is pinned and updated, AF_XDP with shared frame memory
	kernelRings  = [2]int{6, 4}  // a socket's rings may be mapped after bind: the library's set-up
	kernelPacket = [2]int{6, 6}  // tcx, which keeps the kernel from what packet sockets take
)

func (x *examination) kernel() {
	v, ok := kernelVersion(x.Machine.Kernel)
	if !ok {
		return
	}
	const newer = "apt-get install -t bookworm-backports linux-image-amd64"
	older := func(than [2]int) bool { return v[0] < than[0] || v[0] == than[0] && v[1] < than[1] }
	if older(kernelLeast) {
		x.host(Error, "kernel", fmt.Sprintf("Linux %s is older than %d.%d, which AF_XDP with frame memory shared by ports, and links of XDP programs that outlive us, need", x.Machine.Kernel, kernelLeast[0], kernelLeast[1]), newer)
		return
	}
	for i := range x.Config.Ports {
		if p := &x.Config.Ports[i]; p.Driver == "af_packet" && older(kernelPacket) {
			x.at(Error, "kernel", &p.Place, "driver", fmt.Sprintf("Linux %s is older than %d.%d: it has no tcx, by which a port of packet sockets keeps what is ours from the kernel", x.Machine.Kernel, kernelPacket[0], kernelPacket[1]), newer)
		}
	}
	if older(kernelRings) {
		x.host(Hint, "kernel", fmt.Sprintf("Linux %s is older than %d.%d: sockets are set up by weir's own code, which weir ports shows as setup weir", x.Machine.Kernel, kernelRings[0], kernelRings[1]))
	}
}

// kernelVersion reads the first two numbers of a release such as 6.1.0-18-amd64.
func kernelVersion(release string) (v [2]int, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &v[0], &v[1])
	return v, n == 2 && err == nil
}

// memory compares what weir takes with what there is.
func (x *examination) memory() {
	const mib = 1 << 20
	most := uint64(x.Config.Conntrack.MaxConnections)
	switch m := x.Machine.Available; {
	case m == 0:
	case x.Frames > m:
		x.host(Error, "memory", fmt.Sprintf("frames of %d workers take %d MiB at the start, %d MiB are available: fewer workers (engine.workers)", x.Workers, x.Frames/mib, m/mib))
	case x.Frames+x.Table > m && x.Table > 0:
		fit := (m - x.Frames) / (x.Table / most) / 1024 * 1024
		x.host(Warning, "memory", fmt.Sprintf("a full table of %d connections takes %d MiB and frames %d MiB, but %d MiB are available: the kernel would end weir before the table is full (conntrack.max_connections: %d)",
			most, x.Table/mib, x.Frames/mib, m/mib, fit))
	}
	if x.Frames > x.Machine.Memlock {
		x.host(Warning, "memlock", fmt.Sprintf("started from here weir could lock %d KiB of memory, frames take %d MiB (under systemd LimitMEMLOCK=infinity, or CAP_IPC_LOCK)", x.Machine.Memlock>>10, x.Frames/mib), "ulimit -l unlimited")
	}
}

// processors has hints about speed: what moves interrupts onto workers' cores, slows cores down, or makes each look at the clock a slow one.
func (x *examination) processors() {
	read := func(path string) string {
		b, _ := os.ReadFile(x.Machine.Root + path)
		return strings.TrimSpace(string(b))
	}
	governors, _ := filepath.Glob(x.Machine.Root + "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
	for _, g := range governors {
		if now := read(strings.TrimPrefix(g, x.Machine.Root)); now != "performance" && now != "" {
			x.host(Hint, "governor", "cores run by the governor "+now+", which is late to speed up for a burst",
				"echo performance | tee "+x.Machine.Root+"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
			break
		}
	}
	const source = "/sys/devices/system/clocksource/clocksource0/"
	if now := read(source + "current_clocksource"); now == "hpet" || now == "acpi_pm" || now == "refined-jiffies" {
		cure := ""
		if strings.Contains(read(source+"available_clocksource"), "tsc") {
			cure = "echo tsc > " + x.Machine.Root + source + "current_clocksource"
		}
		x.host(Hint, "clock", "the clock is "+now+", and a look at it costs a system call and a microsecond; weir looks once a vector", cure)
	}
	names, _ := filepath.Glob(x.Machine.Root + "/proc/[0-9]*/comm")
	for _, n := range names {
		if read(strings.TrimPrefix(n, x.Machine.Root)) == "irqbalance" {
			x.host(Hint, "irqbalance", "irqbalance moves interrupts onto workers' cores (or have it leave them alone: IRQBALANCE_BANNED_CPULIST)", "systemctl stop irqbalance")
			break
		}
	}
}

// neighbours compares the servers and VTEPs on the ports' links, which weir has the kernel keep resolved, with what its neighbour tables hold. Their
// sizes are the machine's, for all namespaces together; where they cannot be read, in a container, there is nothing to say.
func (x *examination) neighbours() {
	needed := [2]map[netip.Addr]bool{{}, {}} // by family
	for _, a := range x.Config.Stations() {
		if !slices.ContainsFunc(x.links, func(l host.Link) bool {
			return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
		}) {
			continue
		}
		if a.Is4() {
			needed[0][a] = true
		} else {
			needed[1][a] = true
		}
	}
	for i, family := range []string{"ipv4", "ipv6"} {
		path, n := x.Machine.Root+"/proc/sys/net/"+family+"/neigh/default/gc_thresh", len(needed[i])
		text, err := os.ReadFile(path + "2")
		swept, bad := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || bad != nil || n <= swept {
			continue
		}
		x.host(Warning, "gc_thresh", fmt.Sprintf("%d servers and VTEPs of %s are on the ports' links, but from %d neighbours on (net.%s.neigh.default.gc_thresh2) the kernel drops those that only weir uses: packets then wait for them again and again",
			n, family, swept, family), fmt.Sprintf("echo %d > %s3", 4*n, path), fmt.Sprintf("echo %d > %s2", 2*n, path))
	}
}
