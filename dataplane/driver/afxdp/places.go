package afxdp

import (
	"sync/atomic"

	"weir/dataplane/driver"
)

var _ driver.Placer = (*Queue)(nil)

// Places implements [driver.Placer]. While nothing moves the kernel has none but what it keeps in copy mode after a frame that found no room: it
// receives into that chunk next.
func (q *Queue) Places() (p driver.Places) {
	for _, o := range q.owner {
		if o == q.id {
			p.Owned++
		}
	}
	if q.fd < 0 {
		p.Kernel = q.held // none: without a socket nothing is held
		return p
	}
	p.Fill, p.Tx = int(q.fill.left()), int(q.tx.left())
	p.Rx, p.Completion = int(q.rx.waiting()), int(q.completion.waiting())
	p.Kernel = q.held - p.Fill - p.Tx - p.Rx - p.Completion
	return p
}

// waiting is how many entries the kernel has put in that have not been read.
func (c *consumer) waiting() uint32 { return atomic.LoadUint32(c.producer) - c.next }
