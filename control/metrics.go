package control

import (
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"weir/control/metrics"
)

// Metrics with few samples. docs/metrics.md is held to these tables by a test; names follow prometheus.io/docs/practices/naming.
var (
	buildInfo      = metrics.NewGauge("weir_build_info", "What runs: always 1", "version", "goversion")
	startTime      = metrics.NewGauge("weir_start_time_seconds", "When the daemon was started, in seconds since 1970")
	generation     = metrics.NewGauge("weir_config_generation", "Number of the configuration in force: 1 at the start, one more with each reload")
	reloadOK       = metrics.NewGauge("weir_config_last_reload_successful", "1 if the last reload was taken over, or there was none; 0 if it was refused")
	reloadTime     = metrics.NewGauge("weir_config_last_reload_success_timestamp_seconds", "When the configuration in force was taken over, in seconds since 1970")
	problems       = metrics.NewGauge("weir_warnings", "What `weir status` warns of, in number")
	framesReceived = metrics.NewCounter("weir_frames_received_total", "Frames received: the sum of weir_frames_total and weir_frames_held whenever the workers are between two vectors")
	frames         = metrics.NewCounter("weir_frames_total", "Frames received, by what became of them: forwarded, answered, punted, consumed or dropped", "verdict")
	framesHeld     = metrics.NewGauge("weir_frames_held", "Frames that wait for a neighbour's MAC address now")
	framesSent     = metrics.NewCounter("weir_frames_sent_besides_total", "Frames sent in addition to the forwarded: answers, copies of floods, fragments after the first")
	framesPassed   = metrics.NewCounter("weir_frames_passed_total", "Frames left to the kernel by steering in software, on ports without a program; not among the received")
	drops          = metrics.NewCounter("weir_drops_total", "Frames dropped, by the reason (docs/packet-walk.md says what each means)", "reason")
	steered        = metrics.NewCounter("weir_steering_frames_total", "Frames that the XDP program looked at, by the rule that decided", "rule")

	portInfo    = metrics.NewGauge("weir_port_info", "A port and the driver mode that it got: always 1", "port", "interface", "driver", "mode", "setup", "mac")
	portUp      = metrics.NewGauge("weir_port_up", "1 if the port's queues are up", "port")
	portMTU     = metrics.NewGauge("weir_port_mtu_bytes", "Largest IP packet that the port takes", "port")
	portQueues  = metrics.NewGauge("weir_port_queues", "Queues of the port that workers have", "port")
	portRx      = metrics.NewCounter("weir_port_rx_frames_total", "Frames that the port's queues gave to workers", "port")
	portTx      = metrics.NewCounter("weir_port_tx_frames_total", "Frames that the port's queues took from workers", "port")
	portRxLost  = metrics.NewCounter("weir_port_rx_lost_frames_total", "Frames lost before us: ring full, no chunk, too long; also in weir_drops_total", "port")
	portTxLost  = metrics.NewCounter("weir_port_tx_lost_frames_total", "Frames that were given to the device and could not be sent", "port")
	portInvalid = metrics.NewCounter("weir_port_invalid_descriptors_total", "Descriptors of ours that the kernel refused: a bug, please report it", "port")
	portLive    = metrics.NewCounter("weir_port_sent_live_total", "Frames sent as live frames of an XDP program, of those sent", "port")
	portWakeups = metrics.NewCounter("weir_port_wakeups_total", "System calls made to move frames", "port")

	workerInfo    = metrics.NewGauge("weir_worker_info", "A worker, its core (-1: any) and how it waits: always 1", "worker", "cpu", "wait", "huge_pages")
	workerRx      = metrics.NewCounter("weir_worker_received_frames_total", "Frames that the worker received", "worker")
	workerVectors = metrics.NewCounter("weir_worker_vectors_total", "Vectors with at least one frame; received frames by vectors is the mean vector", "worker")
	workerRounds  = metrics.NewCounter("weir_worker_rounds_total", "Rounds over the worker's queues, with or without a frame", "worker")
	workerSleeps  = metrics.NewCounter("weir_worker_sleeps_total", "How often the worker went to sleep", "worker")
	workerHeld    = metrics.NewGauge("weir_worker_held_frames", "Frames of the worker that wait for a neighbour's MAC address now", "worker")
	workerChunks  = metrics.NewGauge("weir_worker_chunks", "Chunks of frame memory that the worker has", "worker")
	workerBeat    = metrics.NewGauge("weir_worker_heartbeat_age_seconds", "Time since the worker's last sign of life: a tenth of a second at most when it is well", "worker")

	backendsNow   = metrics.NewGauge("weir_backends", "Backends by state: up, slow_start, drain, drained or down", "state")
	drainLeft     = metrics.NewGauge("weir_drain_connections", "Connections to servers in drain that are left")
	checks        = metrics.NewGauge("weir_healthchecks", "Health checks, each done once for all who use it")
	checksRunning = metrics.NewGauge("weir_healthchecks_running", "Of them those under way")
	checksLate    = metrics.NewCounter("weir_healthchecks_late_total", "Checks that began a second or more after they were due: too many for this machine")

	tableConns     = metrics.NewGauge("weir_conntrack_connections", "Connections in the table, persistence templates included")
	tableLimit     = metrics.NewGauge("weir_conntrack_connections_limit", "max_connections: beyond it new ones are dropped as table_full")
	tableHalfOpen  = metrics.NewGauge("weir_conntrack_half_open", "Connections whose handshake is not over")
	tableHalfLimit = metrics.NewGauge("weir_conntrack_half_open_limit", "Half-open connections beyond which old ones give way to new ones")
	tableEvictions = metrics.NewCounter("weir_conntrack_evictions_total", "Half-open connections that gave way to new ones")
	cookiesSent    = metrics.NewCounter("weir_syn_cookies_sent_total", "SYNs answered by a cookie")
	cookiesGood    = metrics.NewCounter("weir_syn_cookies_valid_total", "Cookies that clients brought back in time")
	cookiesBad     = metrics.NewCounter("weir_syn_cookies_invalid_total", "ACKs of no connection that bring back no cookie of ours, while some are out")
	challengesSent = metrics.NewCounter("weir_syn_challenges_sent_total", "SYNs answered by a challenge, where servers' answers pass us by")
	challengesMet  = metrics.NewCounter("weir_syn_challenges_met_total", "Challenges that clients answered")
	tableMemory    = metrics.NewGauge("weir_conntrack_memory_bytes", "Memory mapped for the table; what was never touched is not there")
	tableHuge      = metrics.NewGauge("weir_conntrack_huge_memory_bytes", "Of it in huge pages")
)

// small are the families above and those of segments (metrics_overlay.go), in the order of docs/metrics.md.
var small = append([]*metrics.Family{
	buildInfo, startTime, generation, reloadOK, reloadTime, problems,
	framesReceived, frames, framesHeld, framesSent, framesPassed, drops, steered,
	portInfo, portUp, portMTU, portQueues, portRx, portTx, portRxLost, portTxLost, portInvalid, portLive, portWakeups,
	workerInfo, workerRx, workerVectors, workerRounds, workerSleeps, workerHeld, workerChunks, workerBeat,
	backendsNow, drainLeft, checks, checksRunning, checksLate,
	tableConns, tableLimit, tableHalfOpen, tableHalfLimit, tableEvictions, tableMemory, tableHuge,
	cookiesSent, cookiesGood, cookiesBad, challengesSent, challengesMet,
}, overlayFamilies...)

// glance is what the small families are made of: the views that the API shows, but for services.
type glance struct {
	stats   Stats // without services
	status  Status
	workers []WorkerView
	refused bool // the last reload
}

// collector makes metrics of a glance. It is asked once for each scrape; the data path pays nothing for it.
type collector struct{ look func() glance }

// Describe names what Collect gives.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range small {
		ch <- f.Desc()
	}
}

// Collect looks at all counters once.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	g := c.look()
	give := func(f *metrics.Family, value float64, labels ...string) { ch <- f.Sample(value, labels...) }
	give(buildInfo, 1, g.status.Version, runtime.Version())
	give(startTime, seconds(g.status.Started.UnixNano()))
	give(generation, float64(g.status.Generation))
	give(reloadOK, truth(!g.refused))
	give(reloadTime, seconds(g.status.Loaded.UnixNano()))
	give(problems, float64(len(g.status.Warnings)))

	v := &g.stats.Verdicts
	give(framesReceived, float64(v.Received))
	for _, x := range []struct {
		verdict string
		n       uint64
	}{{"forwarded", v.Forwarded}, {"answered", v.Answered}, {"punted", v.Punted}, {"consumed", v.Consumed}, {"dropped", v.Dropped}} {
		give(frames, float64(x.n), x.verdict)
	}
	give(framesHeld, float64(v.Held))
	give(framesSent, float64(g.stats.Sent))
	give(framesPassed, float64(g.stats.Passed))
	for reason, n := range g.stats.Drops {
		give(drops, float64(n), reason)
	}
	for rule, n := range g.stats.Steering {
		give(steered, float64(n), rule)
	}
	for i := range g.stats.Ports {
		p := &g.stats.Ports[i]
		give(portInfo, 1, p.Name, p.Interface, p.Driver, p.Mode, p.Setup, p.MAC)
		give(portUp, truth(p.Up), p.Name)
		give(portMTU, float64(p.MTU), p.Name)
		give(portQueues, float64(p.Queues), p.Name)
		give(portRx, float64(p.Received), p.Name)
		give(portTx, float64(p.Sent), p.Name)
		give(portRxLost, float64(p.RxLost), p.Name)
		give(portTxLost, float64(p.SendLost), p.Name)
		give(portInvalid, float64(p.Invalid), p.Name)
		give(portLive, float64(p.SentLive), p.Name)
		give(portWakeups, float64(p.Wakeups), p.Name)
	}
	for i := range g.workers {
		w, n := &g.workers[i], strconv.Itoa(g.workers[i].Worker)
		give(workerInfo, 1, n, strconv.Itoa(w.CPU), w.Wait, w.Pages)
		give(workerRx, float64(w.Received), n)
		give(workerVectors, float64(w.Vectors), n)
		give(workerRounds, float64(w.Rounds), n)
		give(workerSleeps, float64(w.Sleeps), n)
		give(workerHeld, float64(w.Held), n)
		give(workerChunks, float64(w.Chunks), n)
		give(workerBeat, w.BeatAgeS, n)
	}
	h := &g.status.Health
	for _, x := range []struct {
		state condition
		n     int
	}{{up, h.Up}, {slowStart, h.SlowStart}, {drain, h.Drain}, {drained, h.Drained}, {down, h.Down}} {
		give(backendsNow, float64(x.n), x.state.String())
	}
	give(drainLeft, float64(h.Left))
	give(checks, float64(h.Checks))
	give(checksRunning, float64(h.Running))
	give(checksLate, float64(h.Late))
	give(tableConns, float64(g.status.Connections))
	give(tableLimit, float64(g.status.Capacity))
	give(tableHalfOpen, float64(g.status.HalfOpen))
	give(tableHalfLimit, float64(g.status.HalfOpenCap))
	give(tableEvictions, float64(g.status.Evicted))
	give(cookiesSent, float64(g.status.Cookies.Sent))
	give(cookiesGood, float64(g.status.Cookies.Good))
	give(cookiesBad, float64(g.status.Cookies.Bad))
	give(challengesSent, float64(g.status.Cookies.Challenges))
	give(challengesMet, float64(g.status.Cookies.Vouched))
	give(tableMemory, float64(g.status.TableMemory.Bytes))
	give(tableHuge, float64(g.status.TableMemory.HugeBytes))
	for i := range g.stats.VXLAN {
		collectSegment(give, &g.stats.VXLAN[i])
	}
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// newMetricsRegistry is what a scrape gathers from: ours, the Go runtime's, the process's.
func newMetricsRegistry(look func() glance) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{look}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
