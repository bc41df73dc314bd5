package conntrack

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const sctp = 132

// sctpRecording is what a kernel made of sequences of packets: the file's own words say more.
type sctpRecording struct {
	Timeouts map[string]int `json:"timeouts_s"`
	Runs     []struct {
		OneWay           bool `json:"one_way"`
		Active, Inactive []string
		States           map[string]string // of a connection after the packets; empty: none was opened
	}
}

func readSCTP(t *testing.T) (r sctpRecording) {
	t.Helper()
	text, err := os.ReadFile("testdata/sctp/linux-6.1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Every chunk in every state that the kernel can be brought to leads where it led there.
func TestSCTPAsTheKernelDid(t *testing.T) {
	to := DefaultTimeouts()
	recording := readSCTP(t)
	for _, run := range recording.Runs {
		compared := 0
		for packets, want := range run.States {
			if want == "" {
				continue // it opens no connection, and so none is inserted
			}
			tab := newTable(t, 1, 1)
			c := nat(1, false, sctp)
			c.OneWay = run.OneWay
			var r Ref
			for i, p := range strings.Fields(packets) {
				n, err := strconv.Atoi(p[1:])
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					r = mustInsert(t, tab, c, uint8(n), 0)
				}
				ref := r
				if p[0] == 's' {
					ref = r.Peer()
				}
				if _, alive := tab.Track(ref, uint8(n), &to, 0); !alive {
					t.Fatalf("%s: the connection is gone", packets)
				}
			}
			s := tab.State(r)
			if s.String() != want {
				t.Errorf("one way %v, after %q: %v, the kernel's is in %s", run.OneWay, packets, s, want)
			}
			if seconds := recording.Timeouts[want]; word(*tab.life(r)).timeout() != Ticks(time.Duration(seconds)*time.Second) {
				t.Errorf("%v lives %d ticks, the kernel's %d seconds", s, word(*tab.life(r)).timeout(), seconds)
			}
			if active, inactive := slices.Contains(run.Active, want), slices.Contains(run.Inactive, want); active == inactive || s.Active() != active {
				t.Errorf("%v is active %v, the kernel's active %v, inactive %v", s, s.Active(), active, inactive)
			}
			compared++
		}
		if compared < 100 {
			t.Errorf("one way %v: %d sequences compared", run.OneWay, compared)
		}
	}
}

// The tables hold what no sequence of packets reaches, too: what the states mean is enough to tell some of it.
func TestSCTPTables(t *testing.T) {
	for d := input; d < numDirections; d++ {
		for s := SCTPNone; s <= SCTPClosed; s++ {
			for e := range uint8(32) {
				got := s.step(d, e)
				what := fmt.Sprintf("direction %d, %v (%d), event %d leads to %v", d, s, s, e, got)
				switch chunk := e & 15; {
				case got < SCTPNone || got > SCTPClosed:
					t.Errorf("%s, no state of SCTP", what)
				case got == SCTPNone && s != SCTPNone:
					t.Errorf("%s: nothing leads back", what)
				case e&chunkAbortBehind != 0 || chunk == chunkAbort:
					if got != SCTPClosed && got != SCTPRejected {
						t.Errorf("%s: an ABORT ends it", what)
					}
				case chunk == chunkNone && got != s:
					t.Errorf("%s: a packet without a chunk", what)
				case slices.Contains([]uint8{3, 4, 5, 12, 13}, chunk) && got != s.step(d, chunkData):
					t.Errorf("%s, DATA to %v", what, s.step(d, chunkData))
				case s == SCTPEstablished && got != s && chunk != chunkShutdown && !(d == inputOnly && chunk == chunkShutdownAck):
					t.Errorf("%s: only a SHUTDOWN or an ABORT ends it", what)
				case s == SCTPClosed && got != s && chunk != chunkInit:
					t.Errorf("%s: only an INIT opens it again", what)
				}
			}
		}
	}
}

// The packet that opens a connection moves it once, though Insert and Track both see it.
func TestSCTPFirstPacket(t *testing.T) {
	for _, c := range []struct {
		name   string
		event  uint8
		oneWay bool
		want   State
	}{
		{"INIT", chunkInit, false, SCTPInit1},
		{"INIT of a one-way connection", chunkInit, true, SCTPInit1},
		{"DATA in the middle (sloppy_sctp)", chunkData, false, SCTPEstablished},
		{"INIT ACK of a one-way connection", chunkInitAck, true, SCTPCookieEchoed},
		{"COOKIE ECHO with an ABORT behind", chunkCookieEcho | chunkAbortBehind, false, SCTPClosed},
	} {
		for _, v6 := range []bool{false, true} {
			tab, to := newTable(t, 1, 1), DefaultTimeouts()
			conn := nat(1, v6, sctp)
			conn.OneWay = c.oneWay
			r, s, o := tab.Insert(0, &conn, c.event, &to, 5)
			if o != Inserted || s != SCTPNone || s.Active() {
				t.Errorf("%s: %v in %v, want NONE until Track", c.name, o, s)
			}
			if ch, alive := tab.Track(r, c.event, &to, 5); !alive || ch != (Change{SCTPNone, c.want}) || tab.State(r) != c.want {
				t.Errorf("%s: Track: %v, alive %v; want a change to %v", c.name, ch, alive, c.want)
			}
		}
	}
}
