// Package pcapfile is the driver behind `weir replay`: capture files in, capture files out, and the captures' own time.
//
// A [Clock] merges the inputs of all its queues by timestamp, and is the time that outputs bear. The replay loop drives it:
//
//	for {
//		ns, ok := clock.Next() // the time of the earliest frame not yet given out
//		if !ok {
//			break
//		}
//		clock.Set(ns)    // after the timers before ns, each with a Set of its own
//		worker.Round(ns) // its queues' Receive gives out frames of that instant, up to a vector, and Send writes at that instant
//	}
//	err := clock.Err()
//
// Nothing depends on the wall clock, on a map's order or on another goroutine, so the same inputs give the same outputs, byte for byte.
package pcapfile

import "errors"

// Clock is the time of a replay and the merge of its inputs. One goroutine uses it and its queues.
type Clock struct {
	now    int64    // nanoseconds since 1970
	inputs []*input // in the order in which they were given
	files  []file   // all that are open, inputs and outputs
	err    error    // of the inputs that broke off
}

// NewClock makes a clock at 1970 without inputs.
func NewClock() *Clock { return &Clock{} }

// Next tells the time of the earliest frame that is not yet given out, in nanoseconds since 1970. It reports false when there is none.
// It changes nothing: until Set has reached that time, and until all frames of it are received, it tells the same.
func (c *Clock) Next() (ns int64, ok bool) {
	in := c.first()
	if in == nil {
		return 0, false
	}
	return max(in.at, c.now), true
}

// Set moves the clock to ns. It never goes back: an earlier ns changes nothing.
func (c *Clock) Set(ns int64) { c.now = max(c.now, ns) }

// Now is where the clock stands, in nanoseconds since 1970.
func (c *Clock) Now() int64 { return c.now }

// Err tells which inputs broke off and where: `FILE: packet N: reason`, N counted from 1 as other tools do, one line for each. The
// frames before that were or will be given out, and so are the other inputs' frames after it. nil while every input is sound.
func (c *Clock) Err() error { return c.err }

// first is the input whose frame is next: the earliest, and of equal ones that of the input given first. So the order of frames of
// one instant is that of the inputs, whatever order a worker asks its queues in.
func (c *Clock) first() *input {
	var first *input
	for _, in := range c.inputs {
		if in.open && (first == nil || in.at < first.at) {
			first = in
		}
	}
	return first
}

// advance reads the next frame of in.
func (c *Clock) advance(in *input) {
	if err := in.read(); err != nil {
		c.err = errors.Join(c.err, err)
	}
}
