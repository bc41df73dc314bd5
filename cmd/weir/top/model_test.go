package top

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"weir/control"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// sample has n services; service i has taken i*packets packets. Its daemon has been asked seconds after noon.
func sample(pid, n int, packets uint64, seconds int) (s Sample) {
	s.At = noon.Add(time.Duration(seconds) * time.Second)
	s.Status.PID = pid
	for i := range n {
		v := control.ServiceView{Name: fmt.Sprintf("svc%d", i), Protocol: "tcp", Port: uint16(80 + i)}
		v.VIP.Prefix = netip.MustParsePrefix("198.18.9.9/32")
		v.InPackets = uint64(i) * packets
		v.InBytes = 100 * v.InPackets
		b := control.BackendView{Name: fmt.Sprintf("srv%d", i), Address: netip.MustParseAddr("2001:db8::1"), Port: 8000, State: "up", Weight: 1, Active: i}
		b.InPackets = v.InPackets
		v.Backends = []control.BackendView{b}
		s.Stats.Services = append(s.Stats.Services, v)
	}
	s.Workers = []control.WorkerView{{Worker: 0, CPU: 2, Wait: "busy", Received: 32 * packets, Vectors: packets, CPUSeconds: float64(seconds) / 2}}
	s.Stats.Drops = map[string]uint64{"no_backend": packets, "malformed": 1, "table_full": 0}
	s.Stats.Ports = []control.PortView{{Name: "wan", Interface: "eth1", Mode: "native", Up: true, Received: packets, RxLost: packets / 2}}
	return s
}

func two(n int) Model {
	m := New(sample(1, n, 100, 0), sample(1, n, 300, 2), time.Second, nil)
	return send(m, tea.WindowSizeMsg{Width: 200, Height: 10})
}

func send(m Model, msgs ...tea.Msg) Model {
	for _, x := range msgs {
		next, _ := m.Update(x)
		m = next.(Model)
	}
	return m
}

// keys makes key presses of words: "tab", "/", "down".
func keys(words ...string) (all []tea.Msg) {
	named := map[string]rune{"tab": tea.KeyTab, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace, "up": tea.KeyUp, "down": tea.KeyDown, "pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "end": tea.KeyEnd, "home": tea.KeyHome}
	for _, w := range words {
		if code, ok := named[w]; ok {
			all = append(all, tea.KeyPressMsg{Code: code})
		} else {
			all = append(all, tea.KeyPressMsg{Code: []rune(w)[0], Text: w})
		}
	}
	return all
}

func TestKeys(t *testing.T) {
	for _, x := range []struct {
		name string
		keys []string
		row  string // what the first row begins with
		foot string // what the footer has
	}{
		{"the busiest service is on top", nil, "198.18.9.9:99", "1-6 of 20"},
		{"r turns the order round", []string{"r"}, "198.18.9.9:80", "1-6 of 20"},
		{"s sorts by the next column, out packets, all equal", []string{"s"}, "198.18.9.9:80", "1-6 of 20"},
		{"S sorts by the column before, conns, all equal", []string{"S"}, "198.18.9.9:80", "1-6 of 20"},
		{"down scrolls a row", []string{"down"}, "198.18.9.9:98", "2-7 of 20"},
		{"up stops at the first", []string{"down", "up", "up"}, "198.18.9.9:99", "1-6 of 20"},
		{"page down", []string{"pgdown"}, "198.18.9.9:93", "7-12 of 20"},
		{"end stops with the last", []string{"end", "pgdown"}, "198.18.9.9:85", "15-20 of 20"},
		{"a filter, while it is typed", []string{"/", "S", "V", "C", "1", "1"}, "198.18.9.9:91", "filter: SVC11_"},
		{"q is a letter of the filter", []string{"/", "q", "backspace", "s", "v", "c", "7", "enter"}, "198.18.9.9:87", "1-1 of 1"},
		{"esc ends the filter", []string{"/", "x", "enter", "esc"}, "198.18.9.9:99", "1-6 of 20"},
		{"a filter takes the scrolled back to rows that are there", []string{"end", "/", "s", "v", "c", "7", "enter"}, "198.18.9.9:87", "1-1 of 1"},
		{"tab: backends", []string{"tab"}, "[2001:db8::1]:8000", "1-6 of 20"},
		{"3: workers", []string{"3"}, "      0", "1-1 of 1"},
		{"4: drops that were counted", []string{"4"}, "no_backend", "1-2 of 2"},
		{"5: ports", []string{"5"}, "wan", "1-1 of 1"},
		{"tab goes round", []string{"5", "tab"}, "198.18.9.9:99", "1-6 of 20"},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := send(two(20), keys(x.keys...)...)
			lines := strings.Split(m.screen(), "\n")
			if !strings.HasPrefix(lines[3], x.row) || !strings.Contains(lines[len(lines)-1], x.foot) {
				t.Errorf("row %q, footer in:\n%s", x.row, m.screen())
			}
		})
	}
}

func TestQuit(t *testing.T) {
	_, cmd := two(1).Update(keys("q")[0])
	if cmd == nil {
		t.Fatal("q does nothing")
	}
	if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("q does not quit")
	}
}

// TestRates holds the numbers of a table against what was counted: 200 packets more for each number of service in 2 s.
func TestRates(t *testing.T) {
	before, now := sample(1, 2, 100, 0), sample(1, 2, 300, 2)
	zeroed, other := sample(1, 2, 50, 2), sample(2, 2, 300, 2)
	for _, x := range []struct {
		name                                        string
		now                                         *Sample
		packets, bits, worker, vector, drop, rxLost float64
	}{
		{"risen", &now, 100, 80000, 3200, 32, 100, 50},
		{"set to zero in between: what came since", &zeroed, 25, 20000, 800, 32, 25, 12.5},
		{"another process: none", &other, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := JSON(&out, &before, x.now); err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			for _, y := range []struct {
				table string
				row   int
				name  string
				want  any
			}{
				{"services", 1, "in_packets_per_s", x.packets}, {"services", 1, "in_bit_s", x.bits}, {"services", 1, "active", 1.0},
				{"backends", 1, "in_packets_per_s", x.packets}, {"backends", 1, "service", "198.18.9.9:81"},
				{"workers", 0, "received_per_s", x.worker}, {"workers", 0, "per_vector", x.vector},
				{"drops", 1, "reason", "no_backend"}, {"drops", 1, "frames_per_s", x.drop}, {"ports", 0, "rx_lost_per_s", x.rxLost},
			} {
				if v := got[y.table].([]any)[y.row].(map[string]any)[y.name]; v != y.want {
					t.Errorf("%s %d %s = %v, want %v", y.table, y.row, y.name, v, y.want)
				}
			}
		})
	}
}

func TestDaemonGoesAway(t *testing.T) {
	m := send(two(3), Taken{Err: errors.New("no daemon answers"), At: noon}, Taken{Err: errors.New("still none"), At: noon.Add(time.Minute)})
	if s := m.screen(); !strings.HasPrefix(s, "NO ANSWER since 12:00:00, asking again: still none") || !strings.Contains(s, "198.18.9.9:82") {
		t.Errorf("gone, with the last tables kept:\n%s", s)
	}
	m = send(m, Taken{Sample: sample(77, 1, 900, 70)})
	if s := m.screen(); strings.Contains(s, "NO ANSWER") || !strings.Contains(s, "pid 77") || !strings.Contains(s, "1-1 of 1") {
		t.Errorf("back:\n%s", s)
	}
}

// TestAnyTerminal draws on terminals of all sizes: nothing is wider or higher, and no name steers the terminal.
func TestAnyTerminal(t *testing.T) {
	m := two(20)
	m.tables[0].Rows[0][2].Word = "\x1b[2J\r\nä漢"
	for w := 1; w < 130; w += 7 {
		for h := 1; h < 30; h++ {
			m := send(m, tea.WindowSizeMsg{Width: w, Height: h}, keys("end")[0])
			lines := strings.Split(m.screen(), "\n")
			if len(lines) > h {
				t.Errorf("%dx%d: %d lines", w, h, len(lines))
			}
			for _, l := range lines {
				if ansi.StringWidth(l) > w || strings.ContainsAny(l, "\x1b\r") {
					t.Errorf("%dx%d: %q", w, h, l)
				}
			}
		}
	}
}
