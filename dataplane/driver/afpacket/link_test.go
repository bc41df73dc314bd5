package afpacket

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"weir/dataplane/packet"
)

func TestLinkDownAndUpAgain(t *testing.T) {
	for _, tt := range []struct {
		name     string
		down, up func(t *testing.T)
		reopened uint64
	}{
		{"switched off", func(t *testing.T) { netlink.LinkSetDown(link(t, near)) }, func(t *testing.T) { netlink.LinkSetUp(link(t, near)) }, 0},
		{"without carrier", func(t *testing.T) { netlink.LinkSetDown(link(t, far)) }, func(t *testing.T) { netlink.LinkSetUp(link(t, far)) }, 0},
		{"gone", func(t *testing.T) { netlink.LinkDel(link(t, near)) }, func(t *testing.T) { addVeth(t, 1500) }, 1},
		{"gone, and back with another MTU", func(t *testing.T) { netlink.LinkDel(link(t, near)) }, func(t *testing.T) { addVeth(t, 1400) }, 1},
		{"another device by that name", func(t *testing.T) {}, func(t *testing.T) { netlink.LinkDel(link(t, near)); addVeth(t, 1500) }, 1},
	} {
		for _, group := range []uint16{0, 77} {
			t.Run(fmt.Sprintf("%s, fanout %d", tt.name, group), func(t *testing.T) {
				namespace(t)
				addVeth(t, 1500)
				q := open(t, newPool(t, 512), Options{Fanout: group})
				tt.down(t)
				if tt.name != "another device by that name" {
					send(t, q, experiment(60)) // whoever notices first: sendmmsg or the look
					until(t, q, "down", func() bool { return !q.Stats().Up })
					lost := q.Stats().SendLost
					send(t, q, experiment(60), experiment(60))
					if s := q.Stats(); s.SendLost != lost+2 || q.Held() != 0 || q.pool.Free() != q.pool.Chunks() {
						t.Errorf("down: held %d, free %d, stats %+v; want two more lost and no chunk held", q.Held(), q.pool.Free(), s)
					}
					if n := q.Receive(make([]packet.Desc, 8)); n != 0 || !q.Flush() {
						t.Errorf("down: received %d; a Flush must report pending", n)
					}
				}
				tt.up(t)
				until(t, q, "up", func() bool { return q.Stats().Up && q.Counters().Reopened == tt.reopened })
				p := newPeer(t)
				p.inject(experiment(100))
				if got := gather(q, 1, isExperiment); len(got) != 1 || !bytes.Equal(got[0], experiment(100)) {
					t.Errorf("up again: received %x", got)
				}
				sent := q.Stats().Sent
				send(t, q, experiment(200))
				q.Flush()
				if s := q.Stats(); s.Sent != sent+1 {
					t.Errorf("up again: stats %+v, want one more sent than %d", s, sent)
				}
				if fd := q.FD(); fd < 0 {
					t.Errorf("up again: descriptor %d", fd)
				}
			})
		}
	}
}

func TestOpenWhileTheLinkIsDown(t *testing.T) {
	namespace(t)
	addVeth(t, 1500)
	netlink.LinkSetDown(link(t, near))
	q := open(t, newPool(t, 512), Options{Fanout: 5})
	if q.Stats().Up {
		t.Error("a device that is down is said to be up")
	}
	netlink.LinkSetUp(link(t, near))
	until(t, q, "up", func() bool { return q.Stats().Up })
	newPeer(t).inject(experiment(100))
	if got := gather(q, 1, isExperiment); len(got) != 1 {
		t.Errorf("received %d frames, want 1", len(got))
	}
}

func TestTheMTUChangesUnderWay(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after int
		reopened      uint64
	}{
		{"a longer frame fits the ring's slots", 1400, 1500, 0},
		{"the slots are too short for it", 500, 1500, 1},
		{"shorter", 1500, 500, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			namespace(t)
			addVeth(t, tt.before)
			q := open(t, newPool(t, 512), Options{})
			for _, name := range []string{near, far} {
				if err := netlink.LinkSetMTU(link(t, name), tt.after); err != nil {
					t.Fatal(err)
				}
			}
			until(t, q, "the new MTU", func() bool {
				return q.Stats().Up && q.rx.room == uint32(tt.after+ethernetHeader+vlanTag) && q.Counters().Reopened == tt.reopened
			})
			want := experiment(tt.after + ethernetHeader)
			newPeer(t).inject(want)
			if got := gather(q, 1, isExperiment); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("received %d frames, want one of %d bytes; %+v", len(got), len(want), q.Counters())
			}
		})
	}
}
