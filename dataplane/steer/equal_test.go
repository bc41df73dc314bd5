package steer

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// TestEqual changes one field after the other, of rules and of what they are made of: none may be forgotten, or a reload that changes it would not reach
// the kernel.
func TestEqual(t *testing.T) {
	a := netip.MustParseAddr("198.18.9.9")
	make := func() *Rules {
		return &Rules{
			Ports: []Port{{Name: "wan", Ifindex: 3, MACs: [][6]byte{{2}}, VLAN: 7, Access: []uint16{9}, Groups: [][6]byte{{1}}}},
			Local: []netip.Addr{a}, NAT: []NAT{{a, 1, 2}}, VTEPs: []VTEP{{a, 4789, []uint32{5001}}}, Services: []Service{{One(a), 6, 80, 80}},
			Servers: []Server{{a, 6, 80}}, Routed: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24")}, Tunnels: []Tunnel{{a, 4, 0}}, Grace: time.Second,
		}
	}
	if !make().Equal(make()) {
		t.Fatal("what says the same is not equal")
	}
	other := map[reflect.Type]any{
		reflect.TypeFor[netip.Addr](): netip.MustParseAddr("198.18.9.10"), reflect.TypeFor[netip.Prefix](): netip.MustParsePrefix("172.16.1.0/24"),
		reflect.TypeFor[string](): "other", reflect.TypeFor[bool](): true, reflect.TypeFor[int](): 99, reflect.TypeFor[uint8](): uint8(99), reflect.TypeFor[uint16](): uint16(99),
		reflect.TypeFor[uint32](): uint32(99), reflect.TypeFor[[6]byte](): [6]byte{6}, reflect.TypeFor[time.Duration](): time.Hour,
	}
	changes := 0
	var change func(path string, at func(*Rules) reflect.Value)
	change = func(path string, at func(*Rules) reflect.Value) {
		v := at(make())
		if x, ok := other[v.Type()]; ok {
			r := make()
			at(r).Set(reflect.ValueOf(x))
			if changes++; r.Equal(make()) || make().Equal(r) {
				t.Errorf("%s is not compared", path)
			}
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(path+"."+v.Type().Field(i).Name, func(r *Rules) reflect.Value { return at(r).Field(i) })
			}
		case reflect.Slice:
			r := make()
			at(r).Set(reflect.AppendSlice(at(r), at(make())))
			if changes++; r.Equal(make()) || make().Equal(r) {
				t.Errorf("the length of %s is not compared", path)
			}
			change(path+"[0]", func(r *Rules) reflect.Value { return at(r).Index(0) })
		default:
			t.Fatalf("%s: the test has no other %v", path, v.Type())
		}
	}
	change("rules", func(r *Rules) reflect.Value { return reflect.ValueOf(r).Elem() })
	if changes < 30 {
		t.Errorf("%d changes were tried", changes)
	}
}
