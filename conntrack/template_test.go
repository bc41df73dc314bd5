package conntrack

import (
	"testing"
	"time"
)

func template(i int) Conn {
	c := nat(i, false, tcp)
	k := Tuple{Src: c.Forward.Src, Dst: c.Forward.Dst, Ports: 80, Space: TemplateSpace(tcp)}
	return Conn{Forward: k, ForwardTo: k, Backend: 7, OneWay: true, Template: true}
}

func find(t *testing.T, tab *Table, k Tuple) Ref {
	t.Helper()
	q := []Query{{Tuple: k}}
	tab.Lookup(q)
	return q[0].Ref
}

// expireAll is one pass of Expire over everything; it returns how many ended.
func expireAll(tab *Table, now Tick) (ended []Ended) {
	var out [64]Ended
	for {
		n, left := tab.Expire(0, now, 1<<20, out[:])
		ended = append(ended, out[:n]...)
		if left == 0 {
			return ended
		}
	}
}

func TestTemplateOutlivesItsTimeWhileItHasChildren(t *testing.T) {
	tab := newTable(t, 16, 1)
	to := DefaultTimeouts()
	to[Template] = Ticks(10 * time.Second)
	at := func(s int) Tick { return TickOf(int64(s) * int64(time.Second)) }
	tpl := template(0)
	ref, state, outcome := tab.Insert(0, &tpl, 0, &to, at(0))
	if outcome != Inserted || state != Template {
		t.Fatalf("a template was %v in state %v", outcome, state)
	}
	child := nat(0, false, tcp)
	child.Control = ref
	kid, _, outcome := tab.Insert(0, &child, syn, &to, at(0))
	if outcome != Inserted || !tab.Controlled(kid) || tab.Controlled(ref) {
		t.Fatalf("a child was %v; controlled %v, its template %v", outcome, tab.Controlled(kid), tab.Controlled(ref))
	}
	if ended := expireAll(tab, at(11)); len(ended) != 0 || find(t, tab, tpl.Forward) != ref {
		t.Fatalf("the template ended beside its child: %v", ended)
	}
	if _, alive := tab.Track(ref, 0, &to, at(12)); !alive {
		t.Fatal("the template is of no use while its child lives")
	}
	if ended := expireAll(tab, at(23)); len(ended) != 0 {
		t.Fatalf("ended: %v, want none while the child lives", ended)
	}
	if ended := expireAll(tab, at(61)); len(ended) != 1 || ended[0].State != SynRecv { // SYN_RECV's 60 s are over
		t.Fatalf("ended: %v, want the child", ended)
	}
	if find(t, tab, tpl.Forward) == 0 {
		t.Fatal("the template ended before its grace was over")
	}
	if ended := expireAll(tab, at(122)); len(ended) != 1 || ended[0].State != Template {
		t.Fatalf("ended: %v, want the template", ended)
	}
	if tab.Len() != 0 {
		t.Errorf("%d connections are left", tab.Len())
	}
}

func TestChildOfAnUnlinkedTemplateLeavesItsHeirAlone(t *testing.T) {
	tab := newTable(t, 16, 1)
	ref := mustInsert(t, tab, template(0), 0, 0)
	child := nat(0, false, tcp)
	child.Control = ref
	kid := mustInsert(t, tab, child, syn, 0)
	tab.Unlink(0, ref)
	// Fill the table with templates that each have a child, so that one of them has ref's memory.
	tab.Quiesce(0)
	tab.Quiesce(0)
	heirs := []Ref{}
	for i := 1; i < 8; i++ {
		h := mustInsert(t, tab, template(i), 0, 0)
		c := nat(i, false, tcp)
		c.Control = h
		mustInsert(t, tab, c, syn, 0)
		heirs = append(heirs, h)
	}
	reused := false
	for _, h := range heirs {
		reused = reused || h == ref
	}
	if !reused {
		t.Fatal("the template's memory was not used again: the test shows nothing")
	}
	tab.Unlink(0, kid)
	for _, h := range heirs {
		if n := tab.children(h); n != 1 {
			t.Errorf("heir %d has %d children, want 1", h, n)
		}
	}
}

func TestInsertThatFailsGivesItsTemplateBack(t *testing.T) {
	tab := newTable(t, 16, 1)
	ref := mustInsert(t, tab, template(0), 0, 0)
	child := nat(0, false, tcp)
	mustInsert(t, tab, child, syn, 0)
	child.Control = ref
	to := DefaultTimeouts()
	if _, _, outcome := tab.Insert(0, &child, syn, &to, 0); outcome != Exists {
		t.Fatalf("inserted twice: %v", outcome)
	}
	if n := tab.children(ref); n != 0 {
		t.Errorf("the template has %d children, want none", n)
	}
}

func TestOnce(t *testing.T) {
	tab := newTable(t, 4, 1)
	c := nat(3, false, udp)
	for range 1000 {
		r := tab.Once(0, &c)
		if r == 0 {
			t.Fatal("no memory for a packet")
		}
		if in, to := tab.tuples(r); in != c.Forward || to != c.ForwardTo {
			t.Fatalf("kept %+v to %+v", in, to)
		}
		if find(t, tab, c.Forward) != 0 || tab.Len() != 0 {
			t.Fatal("others find it")
		}
		tab.Quiesce(0)
	}
}

func TestNote(t *testing.T) {
	tab := newTable(t, 4, 1)
	c := nat(0, true, tcp)
	c.Flags = 5
	r := mustInsert(t, tab, c, syn, 0)
	if tab.Note(r) != 0 {
		t.Errorf("a new connection's note is %d", tab.Note(r))
	}
	tab.SetNote(r.Peer(), 9)
	if tab.Note(r) != 9 || tab.Flags(r) != 5 || tab.Flags(r.Peer()) != 5 {
		t.Errorf("note %d, flags %d and %d; want 9, 5 and 5", tab.Note(r), tab.Flags(r), tab.Flags(r.Peer()))
	}
}
