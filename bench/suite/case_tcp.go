package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"weir/bench"
)

const (
	iperfPort = 5201
	wrkConns  = 64
)

// web makes a bed of hosts with an HTTP server behind it.
func (s *session) web() (*bed, error) {
	b, err := newHosts()
	if err != nil {
		return nil, err
	}
	here := func() bool { return b.accepts(server, httpPort) }
	b.behind, err = s.nginx(b, "server", fmt.Sprintf("http {\n  access_log off;\n  keepalive_timeout 0;\n  server { listen %d backlog=4096; location / { return 200 ok; } }\n}\n", httpPort), here)
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// iperf makes a bed of hosts with an iperf3 server behind it.
func iperf() (*bed, error) {
	b, err := newHosts()
	if err != nil {
		return nil, err
	}
	if b.behind, err = spawn(b.server, func() bool { return b.accepts(server, iperfPort) }, "iperf3", "-s"); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// connections measures how many connections a second go through: wrk opens one for each request.
func (s *session) connections() error {
	peers := s.available(&weirNAT, &haproxy, &stream, &nftNAT, &routing, &weirAgain)
	if s.Quick {
		peers = s.available(&weirNAT, &haproxy, &nftNAT)
	}
	for _, p := range []string{"wrk", "nginx"} {
		if err := (&peer{name: "connections", needs: []string{p}}).missing(); err != nil {
			return err
		}
	}
	var failed []error
	length := 2 * time.Second
	if s.Quick {
		length = time.Second
	}
	for s.results.round = range s.runs(enoughPairs) {
		for _, p := range turn(peers, s.results.round) {
			failed = append(failed, s.between(s.web, p, func(b *bed, r *running) error {
				if _, err := s.wrk(b, r, 300*time.Millisecond); err != nil {
					return err
				}
				cps, err := s.wrk(b, r, length)
				if err == nil {
					s.results.add("connections", "HTTP, one connection a request", p.name, "connections/s", cps, r, wrkCommand(r, length))
				}
				return err
			}))
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
		}
	}
	failed = append(failed, s.handshakes())
	s.results.compare("connections", "HTTP, one connection a request", "connections/s", map[string]float64{haproxy.name: 1.2, stream.name: 0, nftNAT.name: 0.85}, &haproxy, &stream, &nftNAT, &routing)
	return errors.Join(failed...)
}

// handshakes measures connections between ends without state, of the generator's: they cost little, so that more of what is measured is the peer's.
func (s *session) handshakes() error {
	peers := s.available(&weirNAT, &nftNAT, &weirAgain)
	if s.Quick {
		peers = s.available(&weirNAT, &nftNAT)
	}
	const name = "handshake and close, ends without state"
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		for _, p := range turn(peers, s.results.round) {
			failed = append(failed, s.with(p, 1, func(b *bed, r *running) error {
				to := []string{"--dst", vip, "--dst-port", strconv.Itoa(vipHTTP)}
				l := load{size: "64", driver: bench.AFXDP, length: s.length(time.Second), more: append(to,
					"--rx-driver", bench.AFXDP, "--traffic", "connect", "--respond", "--flows", "0", "--own", server+"-"+nth(servers-1))}
				t, err := s.through(b, r, l)
				if err == nil && t.TCP.Established == 0 {
					err = fmt.Errorf("no connection was established: %s", t.command)
				}
				if err == nil {
					s.results.add("connections", name, p.name, "connections/s", t.TCP.EstablishedPerS, r, t.command)
				}
				return err
			}))
		}
	}
	s.results.compare("connections", name, "connections/s", nil, &nftNAT)
	return errors.Join(failed...)
}

func wrkArgs(r *running, length time.Duration) []string {
	seconds := max(int(length.Seconds()), 1)
	return []string{"-t1", "-c" + strconv.Itoa(wrkConns), "-d" + strconv.Itoa(seconds) + "s", "-H", "Connection: close", r.url}
}

func wrkCommand(r *running, length time.Duration) string {
	return fmt.Sprintf("wrk -t1 -c%d -d%ds -H 'Connection: close' %s", wrkConns, max(int(length.Seconds()), 1), r.url)
}

// wrk gives requests a second, each over a connection of its own.
func (s *session) wrk(b *bed, r *running, length time.Duration) (float64, error) {
	out, err := b.client.Command("wrk", wrkArgs(r, length)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", wrkCommand(r, length), err, tail(string(out)))
	}
	v, err := parseWrk(string(out))
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", wrkCommand(r, length), err, tail(string(out)))
	}
	return v, nil
}

var wrkRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

func parseWrk(out string) (float64, error) {
	m := wrkRate.FindStringSubmatch(out)
	if m == nil {
		return 0, errors.New("no Requests/sec in it")
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err == nil && v == 0 {
		err = errors.New("no request was answered")
	}
	return v, err
}

// accepts asks whether something listens in the server's namespace.
func (b *bed) accepts(address string, port int) bool {
	return b.server.Exec(func() error { return dial(address, port) }) == nil
}

// stream measures one TCP connection that moves as much as goes. Both its ends are on the generator's CPU: where else they ran would decide the result, and changes by the run.
func (s *session) stream() error {
	peers := s.available(&weirNAT, &weirPackets, &pmdXDP, &pmdPacket, &nftNAT, &weirAgain)
	if s.Quick {
		peers = s.available(&weirNAT, &pmdXDP)
	}
	if err := (&peer{name: "stream", needs: []string{"iperf3"}}).missing(); err != nil {
		return err
	}
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		for _, p := range turn(peers, s.results.round) {
			failed = append(failed, s.between(iperf, p, func(b *bed, r *running) error {
				to := server
				if r.url != "" && p != &routing {
					to = vip
				}
				length := 2
				if s.Quick {
					length = 1
				}
				ends := fmt.Sprintf("%d,%d", s.CPUs[0], s.CPUs[0]) // as the generator of packets is
				args := []string{"-c", to, "-t", strconv.Itoa(length), "-A", ends, "-J", "--connect-timeout", "3000"}
				out, err := b.client.Command("iperf3", args...).Output()
				if err != nil {
					return fmt.Errorf("iperf3: %w: %s", err, tail(string(out)))
				}
				bits, err := parseIperf(out)
				if err == nil {
					s.results.add("stream", "one TCP connection", p.name, "Mbit/s", bits/1e6, r, "iperf3 "+strings.Join(args, " "))
				}
				return err
			}))
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
		}
	}
	targets := map[string]float64{pmdXDP.name: 1, pmdPacket.name: 1}
	s.results.compare("stream", "one TCP connection", "Mbit/s", targets, &pmdXDP, &pmdPacket, &nftNAT)
	s.results.compareOf(&weirPackets, "stream", "one TCP connection", "Mbit/s", targets, &pmdPacket)
	return errors.Join(failed...)
}

// parseIperf gives bits a second that arrived.
func parseIperf(out []byte) (float64, error) {
	var r struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, fmt.Errorf("iperf3: %w", err)
	}
	if r.Error != "" || r.End.Received.Bits == 0 {
		return 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	return r.End.Received.Bits, nil
}
