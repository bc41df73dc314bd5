package route

// Interval6 is the IPv6 addresses from one to another, both of them in.
type Interval6 struct{ first, last addr6 }

// Only6 is the interval of one address, with the upper half hi and the lower half lo.
func Only6(hi, lo uint64) Interval6 { return Interval6{addr6{hi, lo}, addr6{hi, lo}} }

// Has reports whether an address is in x.
func (x *Interval6) Has(hi, lo uint64) bool {
	a := addr6{hi, lo}
	return !a.less(x.first) && !x.last.less(a)
}

func (a addr6) less(b addr6) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// Interval6 returns the addresses around an IPv6 one that have the same route as it, and whether it leads to all of them through one router.
func (t *Table) Interval6(hi, lo uint64) (x Interval6, via bool) {
	v := &t.v6
	if len(v.starts) == 0 {
		return Only6(hi, lo), false
	}
	i := search6(v.starts, hi, lo)
	x = Interval6{v.starts[i], addr6{^uint64(0), ^uint64(0)}}
	if i+1 < len(v.starts) {
		x.last = v.starts[i+1]
		if x.last.lo == 0 {
			x.last.hi--
		}
		x.last.lo--
	}
	e := v.owners[i]
	return x, e != nil && e.Only() != nil && e.Only().Via.IsValid()
}
