package sched

import "sync/atomic"

// Load is what one backend bears. Every plan and every worker shares it; its zero value is a backend without connections. It must
// not be copied.
//
// Who binds decides what is active. In the kernel a new connection is inactive until its first packet has moved its state; TCP is active
// in SYN_SENT, SYN_RECV, SYNACK and ESTABLISHED (tcp_state_active_table), SCTP in ESTABLISHED alone, UDP never.
//
// Both counts and the overload flag are one word, so that the flag always belongs to the counts it was decided by: separate words
// would let a slow Bind set the flag after the last Unbind had cleared it, and the backend would be out for good.
type Load struct {
	// word: active in bits 63-32, inactive in bits 31-1, overload in bit 0. The counts are signed, because a worker that ends a
	// connection may be faster than the one that has just made it active; limits are 2^31 active and 2^30 inactive.
	word       atomic.Uint64
	persistent atomic.Int32
	retired    atomic.Int32          // weight that it had when it was removed: lblcr weighs it still
	group      atomic.Pointer[group] // of the newest plan that weighs many; nil: of none yet
}

const overload = 1 // in Load.word

func pack(active, inactive int32, flag uint64) uint64 {
	return uint64(uint32(active))<<32 | uint64(uint32(inactive)<<1) | flag
}

func unpack(w uint64) (active, inactive int32, flag uint64) {
	return int32(w >> 32), int32(uint32(w)) >> 1, w & overload
}

// Active is the number of connections that count as active.
func (l *Load) Active() int { a, _, _ := unpack(l.word.Load()); return int(a) }

// Inactive is the number of all others.
func (l *Load) Inactive() int { _, i, _ := unpack(l.word.Load()); return int(i) }

// Persistent is the number of persistence templates.
func (l *Load) Persistent() int { return int(l.persistent.Load()) }

// Overloaded reports whether the backend takes no new connections because it has reached its upper threshold and not yet fallen below
// its lower one.
func (l *Load) Overloaded() bool { return l.word.Load()&overload != 0 }

// overhead is ip_vs_dest_conn_overhead: an active connection weighs 256 inactive ones. It is not negative.
func (l *Load) overhead() uint64 {
	a, i, _ := unpack(l.word.Load())
	return overheadOf(a, i)
}

func overheadOf(active, inactive int32) uint64 {
	return uint64(max(0, int64(active)<<8+int64(inactive)))
}

// jobsOf are the active connections and the one to come. It is positive.
func jobsOf(active int32) uint64 {
	return uint64(max(0, int64(active)) + 1)
}

// Bind counts a new connection. The backend is overloaded from the connection that reaches upper on, as in ip_vs_bind_dest; upper 0 is no
// limit. lower plays no part until connections end.
func (l *Load) Bind(active bool, upper, lower uint32) {
	if active {
		l.bind(1, 0, upper)
	} else {
		l.bind(0, 1, upper)
	}
}

// Unbind takes out a connection that has ended: active says what it counted as last. The flag falls as in ip_vs_unbind_dest: below lower; where
// that is 0, below three quarters of upper; where both are, at once.
func (l *Load) Unbind(active bool, upper, lower uint32) {
	if active {
		l.unbind(1, 0, upper, lower)
	} else {
		l.unbind(0, 1, upper, lower)
	}
}

// BindTemplate counts a new persistence template. It is no connection, but looks at the threshold as one does.
func (l *Load) BindTemplate(upper, lower uint32) {
	l.persistent.Add(1)
	l.bind(0, 0, upper)
}

// UnbindTemplate takes out a template that has ended.
func (l *Load) UnbindTemplate(upper, lower uint32) {
	l.persistent.Add(-1)
	l.unbind(0, 0, upper, lower)
}

// Activate moves a connection from the inactive to the active: its state has become one that counts as active.
func (l *Load) Activate() { l.move(1) }

// Deactivate moves a connection back: its state has become one that does not.
func (l *Load) Deactivate() { l.move(-1) }

// Rethreshold is the edit of a backend's upper threshold from was to now, as in __ip_vs_update_dest: raising it or taking it away lifts
// the overload until the next Bind looks. Lowering it, and any change of the lower threshold, shows with the next Bind or Unbind only.
func (l *Load) Rethreshold(was, now uint32) {
	if now == 0 || now > was {
		l.word.And(^uint64(overload))
		l.changed()
	}
}

// LoadState is a Load's counts, for another process.
type LoadState struct {
	Active     int32 `json:"active,omitempty"`
	Inactive   int32 `json:"inactive,omitempty"`
	Persistent int32 `json:"persistent,omitempty"`
	Overload   bool  `json:"overload,omitempty"`
}

// State is l as it is.
func (l *Load) State() LoadState {
	a, i, flag := unpack(l.word.Load())
	return LoadState{a, i, l.persistent.Load(), flag != 0}
}

// Restore gives an unused Load the counts that another process' had.
func (l *Load) Restore(s LoadState) {
	l.persistent.Store(s.Persistent)
	l.bind(s.Active, s.Inactive, 0)
	if s.Overload {
		l.word.Or(overload)
		l.changed()
	}
}

// Reconsider looks at the upper threshold without a new connection: of a backend that was given all its connections at once, say.
func (l *Load) Reconsider(upper uint32) { l.bind(0, 0, upper) }

func (l *Load) bind(active, inactive int32, upper uint32) {
	for {
		w := l.word.Load()
		a, i, flag := unpack(w)
		a, i = a+active, i+inactive
		if upper != 0 && int64(a)+int64(i) >= int64(upper) {
			flag = overload
		}
		if l.word.CompareAndSwap(w, pack(a, i, flag)) {
			l.changed()
			return
		}
	}
}

func (l *Load) unbind(active, inactive int32, upper, lower uint32) {
	for {
		w := l.word.Load()
		a, i, flag := unpack(w)
		a, i = a-active, i-inactive
		switch n := int64(a) + int64(i); {
		case lower != 0:
			if n < int64(lower) {
				flag = 0
			}
		case upper != 0:
			if 4*n < 3*int64(upper) {
				flag = 0
			}
		default:
			flag = 0
		}
		if l.word.CompareAndSwap(w, pack(a, i, flag)) {
			l.changed()
			return
		}
	}
}

func (l *Load) move(n int32) {
	for {
		w := l.word.Load()
		a, i, flag := unpack(w)
		if l.word.CompareAndSwap(w, pack(a+n, i-n, flag)) {
			l.changed()
			return
		}
	}
}
