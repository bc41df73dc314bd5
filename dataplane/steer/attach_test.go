package steer

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/asavie/xdp"
)

func TestGrace(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	r := v.rules()
	r.Grace = 10 * time.Second
	p := start(t, Options{}, r, v.near)
	ours, theirs := frame(tcp(client4, 4000, vip4, 80)), frame(tcp(client4, 4000, local4, 22))
	for _, tt := range []struct {
		name string
		beat func(now uint64) uint64
		want string
		seen int // by the kernel
	}{
		{"never", func(uint64) uint64 { return 0 }, "take_service passed_stale", 1},
		{"now", func(now uint64) uint64 { return now }, "take_service dropped_no_socket", 0},
		{"a little ahead", func(now uint64) uint64 { return now + 1e6 }, "take_service dropped_no_socket", 0},
		{"younger than grace", func(now uint64) uint64 { return now - 5e9 }, "take_service dropped_no_socket", 0},
		{"older than grace", func(now uint64) uint64 { return now - 10e9 }, "take_service passed_stale", 1},
	} {
		p.Beat(tt.beat(uint64(Now())))
		v.tapped(ours)
		if got := counts(t, p, v, ours); got != tt.want {
			t.Errorf("heartbeat %s: %s, want %s", tt.name, got, tt.want)
		}
		if got := v.tapped(ours); got != tt.seen {
			t.Errorf("heartbeat %s: the kernel saw %d frames of ours, want %d", tt.name, got, tt.seen)
		}
		if got := counts(t, p, v, theirs); got != "pass_host" {
			t.Errorf("heartbeat %s: SSH: %s, want pass_host", tt.name, got)
		}
	}
	if err := p.Detach(v.near); err != nil {
		t.Fatal(err)
	}
	if id := v.xdpProgram(t); id != 0 {
		t.Errorf("program %d after Detach", id)
	}
}

func TestSocket(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	p := start(t, Options{Queues: 4}, v.rules(), v.near)
	p.Beat(uint64(Now()))
	xsk, err := xdp.NewSocket(v.near, 0, nil)
	if err != nil {
		t.Skipf("needs AF_XDP on veth: %v", err)
	}
	defer xsk.Close()
	if err := p.Register(v.near, 0, xsk.FD()); err != nil {
		t.Fatal(err)
	}
	xsk.Fill(xsk.GetDescs(xsk.NumFreeFillSlots()))
	ours := frame(tcp(client4, 4000, vip4, 80), 7)
	if got := counts(t, p, v, ours); got != "take_service" {
		t.Errorf("with a socket: %s, want take_service", got)
	}
	if n, _, err := xsk.Poll(1000); err != nil || n != 1 {
		t.Fatalf("received %d frames: %v", n, err)
	}
	if got := xsk.GetFrame(xsk.Receive(1)[0]); !bytes.Equal(got, ours) {
		t.Errorf("received\n% x, want\n% x", got, ours)
	}
	for range 2 { // the second time there is none
		if err := p.Unregister(v.near, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := counts(t, p, v, ours); got != "take_service dropped_no_socket" {
		t.Errorf("without a socket: %s", got)
	}
	if err := p.Register(v.near, 4, xsk.FD()); err == nil {
		t.Error("a queue beyond the last was accepted")
	}
}

func TestModes(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	id := filepath.Join(bpffs(t), "a")
	for _, tt := range []struct{ ask, want Mode }{
		{Generic, Generic}, {Auto, Generic}, {Native, Native}, {Auto, Native}, // auto leaves what is attached as it is
	} {
		p, err := Load(Options{Path: id})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Attach(v.near, tt.ask); err != nil || got != tt.want {
			t.Errorf("asked for %s, got %s, want %s: %v", tt.ask, got, tt.want, err)
		}
		if _, err := p.Attach(v.near, tt.ask); err == nil {
			t.Error("attached twice")
		}
		p.Close()
	}
	p, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Attach(v.near, Auto); err == nil || !strings.Contains(err.Error(), "another XDP program") {
		t.Errorf("a device with another's program: %v", err)
	}
	if _, err := p.Attach(999999, Auto); err == nil {
		t.Error("attached to no device")
	}
	if _, err := p.Attach(v.far, "fast"); err == nil {
		t.Error("attached in an unknown mode")
	}
	if _, err := Cleanup(id); err != nil {
		t.Fatal(err)
	}
}

// TestDrop is a port with a packet socket: it sees everything, the stack only what is not ours. The kernel takes the outer tag off before.
func TestDrop(t *testing.T) {
	needBPF(t)
	inNamespace(t)
	v := newVeth(t, "wxs")
	r := v.rules()
	r.Grace = 10 * time.Second
	p := start(t, Options{}, r)
	if p.tc == nil {
		t.Skip(p.tcErr)
	}
	if err := p.AttachDrop(v.near); err != nil {
		t.Skip(err)
	}
	for _, tags := range [][]uint16{nil, {0}, {7}, {7, 99}} {
		in := frame(tcp(client4, 4000, vip4, 80), tags...)
		p.Beat(uint64(Now()))
		if got := counts(t, p, v, in); got != "take_service" {
			t.Errorf("tags %v: %s, want take_service", tags, got)
		}
		p.Beat(uint64(Now()) - 11e9)
		if got := counts(t, p, v, in); got != "take_service passed_stale" {
			t.Errorf("tags %v, stale: %s, want take_service passed_stale", tags, got)
		}
	}
	if got := counts(t, p, v, frame(tcp(client4, 4000, vip4, 80), 10)); got != "pass_not_our_port" {
		t.Errorf("unknown VLAN: %s", got)
	}
	in := frame(tcp(client4, 4000, vip4, 80))
	v.tapped(in)
	v.write(t, in)
	time.Sleep(10 * time.Millisecond)
	if n := v.tapped(in); n != 1 {
		t.Errorf("the packet socket saw %d copies, want 1", n)
	}
}
