package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weir/bench"
)

// errLoss is a run that worked and lost more than --max-loss allows.
var errLoss = errors.New("more was lost than --max-loss allows")

const pktgenExamples = `  # 1,000 UDP flows of 64 bytes from g0 through a balancer to g1, as many as go, for 10 seconds
  weir pktgen --tx g0 --rx g1 --dst-mac 02:00:00:00:01:0c --src 198.18.0.2-198.18.0.11 --dst 198.18.9.9 --dst-port 53 --flows 1000

  # a mix of sizes at 200,000 frames a second; fail if one in a thousand is lost
  weir pktgen --tx g0 --rx g1 --dst-mac 02:00:00:00:01:0c --src 198.18.0.2 --dst 198.18.9.9 --size imix --rate 200k --max-loss 0.1%

  # there and back: g1 returns each frame, so both directions of a translation work
  weir pktgen --tx g0 --rx g1 --echo --dst-mac 02:00:00:00:01:0c --src 198.18.0.2 --dst 198.18.9.9 --rate 10k

  # TCP connections, opened and closed; g1 plays all servers
  weir pktgen --tx g0 --rx g1 --traffic connect --respond --dst-mac 02:00:00:00:01:0c --src 198.18.0.0/24 --dst 198.18.9.9 --dst-port 80 --rate 20k

  # two processes; the sender is an XDP program that the kernel runs
  weir pktgen --tx g0 --tx-only --driver xdp --dst-mac 02:00:00:00:01:0c --src 198.18.0.0/16 --dst 198.18.9.9
  weir pktgen --rx g1 --rx-only --driver af_packet --duration 30s -o json

  # the generator by itself, without root
  weir pktgen --driver mem --duration 2s`

func pktgenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pktgen",
		Short: "Generate packets, receive them, and measure rate, loss and latency",
		Long: `Generate packets, receive them, and measure rate, loss and latency.

Each frame bears a number and a time in its last bytes, which translation and encapsulation leave alone. With --rate, frames have a time of
their own whatever became of those before, and latency counts from then. Sizes count the frame check sequence. ^C ends a run early.

More lost than --max-loss allows is a failure: exit code 1.`,
		Example: pktgenExamples,
		Args:    cobra.NoArgs,
	}
	exits(c, exitRight)
	f := c.Flags()
	var o bench.Options
	f.StringVar(&o.Driver, "driver", bench.AFXDP, "af_xdp, af_packet, mem (a cable in memory) or xdp (live frames, Linux 5.18)")
	f.StringVar(&o.RxDriver, "rx-driver", "", "driver of the receiving port, if another")
	f.StringVar(&o.Mode, "xdp-mode", "auto", "auto, zerocopy, native or generic")
	f.StringVar(&o.Tx, "tx", "", "interface that sends")
	f.StringVar(&o.Rx, "rx", "", "interface that receives (default: the one that sends)")
	txOnly := f.Bool("tx-only", false, "send, and receive elsewhere")
	rxOnly := f.Bool("rx-only", false, "receive what another process sends")
	f.IntVar(&o.Queues, "queues", 0, "queues of each port (af_xdp), 0: all; frames on others go to the kernel")
	f.IntVar(&o.Threads, "threads", 0, "1: one for both ports, 2: one each (default 2 from four CPUs on)")
	f.IntSliceVar(&o.CPUs, "cpus", nil, "CPUs that the threads run on")
	f.IntVar(&o.Burst, "burst", 64, "frames sent together at most, 1 to 256")
	traffic := f.String("traffic", "udp", "udp, syn (half-open) or connect (handshake and close)")
	src := f.String("src", "198.18.0.2", "source addresses: A, A-B or A/BITS")
	dst := f.String("dst", "198.18.9.9", "destination addresses")
	srcPort := f.String("src-port", "1024-65535", "source ports: N or N-M")
	dstPort := f.String("dst-port", "9", "destination ports")
	srcMAC := f.String("src-mac", "", "source MAC address (default: the interface's)")
	dstMAC := f.String("dst-mac", "", "destination MAC address, that of the device under test")
	f.Uint64Var(&o.Traffic.Flows, "flows", 1, "flows, taken in order of source port, then source address; 0: all there are")
	f.BoolVar(&o.Traffic.Shuffle, "shuffle", false, "flows in random order")
	f.Uint8Var(&o.Traffic.TTL, "ttl", 64, "time to live or hop limit")
	attack := f.String("attack", "", "every second frame is unstamped and of a flood: fragment, icmp (port unreachable), ttl (of 1), port (the one behind --dst-port), station (a source MAC each) or neighbor (to others of --dst's /16)")
	size := f.String("size", "64", "bytes with check sequence: N, N:WEIGHT,... or imix (28:16:4 of 64, 594, 1518)")
	rate := f.String("rate", "max", "frames a second: 1000, 20k, 1.5M, or max")
	f.Uint64Var(&o.Count, "count", 0, "end after so many frames")
	f.DurationVar(&o.Duration, "duration", 0, "end after so long (default 10s; a port that only receives: never)")
	f.DurationVar(&o.Drain, "drain", 500*time.Millisecond, "how long the last frames may take")
	f.BoolVar(&o.Echo, "echo", false, "the receiving port returns each frame; the way there and back is measured")
	f.BoolVar(&o.Respond, "respond", false, "the receiving port accepts TCP connections")
	own := f.StringSlice("own", nil, "addresses, besides --dst, that the receiving port answers ARP and ND for")
	maxLoss := f.String("max-loss", "", "exit 1 if more is lost: 0, 0.001 or 0.1%")
	output := f.StringP("output", "o", "table", "table or json")
	quiet := f.BoolP("quiet", "q", false, "no status line each second")
	c.RunE = func(*cobra.Command, []string) error {
		err := func() (err error) {
			t := &o.Traffic
			t.Kind, t.Attack = bench.Kind(*traffic), bench.Attack(*attack)
			if t.Src, err = bench.ParseRange(*src); err != nil {
				return fmt.Errorf("--src: %w", err)
			}
			if t.Dst, err = bench.ParseRange(*dst); err != nil {
				return fmt.Errorf("--dst: %w", err)
			}
			if t.SrcPorts, err = bench.ParsePorts(*srcPort); err != nil {
				return fmt.Errorf("--src-port: %w", err)
			}
			if t.DstPorts, err = bench.ParsePorts(*dstPort); err != nil {
				return fmt.Errorf("--dst-port: %w", err)
			}
			if t.Mix, err = bench.ParseMix(*size); err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			if t.SrcMAC, err = macOf(*srcMAC); err != nil {
				return fmt.Errorf("--src-mac: %w", err)
			}
			if t.DstMAC, err = macOf(*dstMAC); err != nil {
				return fmt.Errorf("--dst-mac: %w", err)
			}
			if o.Rate, err = parseRate(*rate); err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			for _, s := range *own {
				r, err := bench.ParseRange(s)
				if err != nil {
					return fmt.Errorf("--own: %w", err)
				}
				o.Own = append(o.Own, r)
			}
			switch {
			case *output != "table" && *output != "json":
				return fmt.Errorf("-o %s: pktgen has table and json", *output)
			case *txOnly && *rxOnly:
				return errors.New("--tx-only and --rx-only: neither would be left")
			case *txOnly && o.Rx != "":
				return errors.New("--tx-only and --rx: who receives?")
			case *rxOnly && (o.Tx != "" || o.Rx == ""):
				return errors.New("--rx-only: needs --rx, and no --tx")
			case !*txOnly && o.Rx == "":
				o.Rx = o.Tx
			}
			return o.Check()
		}()
		if err != nil {
			return usage(err)
		}
		allowed, err := parseLoss(*maxLoss)
		if err != nil {
			return usage(fmt.Errorf("--max-loss: %w", err))
		}
		if !*quiet {
			o.Progress = func(p bench.Progress) { fmt.Fprintln(os.Stderr, p.Line()) }
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if len(o.CPUs) > 0 {
			if err := bench.Confine(o.CPUs); err != nil {
				return err
			}
		}
		report, err := bench.Run(ctx, o)
		if err != nil {
			return err
		}
		if *output == "json" {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			if err := e.Encode(report); err != nil {
				return err
			}
		} else {
			report.Print(os.Stdout)
		}
		if allowed >= 0 && report.Loss > allowed {
			return fmt.Errorf("%w: %.6f %% of %d frames", errLoss, report.Loss*100, report.Sent)
		}
		return nil
	}
	return c
}

func macOf(s string) (mac [6]byte, err error) {
	if s == "" {
		return mac, nil
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return mac, fmt.Errorf("%q: must be six bytes, 02:00:00:00:00:01", s)
	}
	return [6]byte(hw), nil
}

// parseRate reads frames a second; 0 is as many as go.
func parseRate(s string) (float64, error) {
	if s == "max" {
		return 0, nil
	}
	number, unit := s, 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "M": 1e6} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = n, f
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v > 0) || v*unit > 1e9 {
		return 0, fmt.Errorf("%q: must be a number of frames a second up to 1000M, or max", s)
	}
	return v * unit, nil
}

// parseLoss reads a part of one, also in percent; nothing is -1, no limit.
func parseLoss(s string) (float64, error) {
	if s == "" {
		return -1, nil
	}
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, fmt.Errorf("%q: must be 0 to 1, or 0%% to 100%%", s)
	}
	return v, nil
}
