package control

import (
	"fmt"

	"weir/control/host"
)

// checkQueues refuses devices with receive queues that no worker would look at: their traffic would be lost. Where the queues are named, it
// is the operator's to have the device put what is ours into these.
func (p *ports) checkQueues(workers int) error {
	for i := range p.cfg.Ports {
		c := &p.cfg.Ports[i]
		if p.owner(i) != i || c.Driver != "af_xdp" {
			continue
		}
		l, err := p.host.Link(c.Interface)
		if err != nil {
			return err
		}
		if q := c.Queues; !q.All {
			switch last := q.List[len(q.List)-1]; {
			case last >= max(l.Channels.Rx, 1):
				return fmt.Errorf("ports[%d] %s: %s has no receive queue %d, it receives on %d", i, c.Name, c.Interface, last, max(l.Channels.Rx, 1))
			case len(q.List) != workers:
				return fmt.Errorf("ports[%d] %s: %d queues are given, but there are %d workers: each has one of them", i, c.Name, len(q.List), workers)
			}
			continue
		}
		want := asManyQueues(c.Interface, &l.Channels, workers)
		switch n := max(l.Channels.Rx, 1); {
		case n > workers:
			return fmt.Errorf("ports[%d] %s: %s receives on %d queues, but there are %d workers: `%s`, or more workers", i, c.Name, c.Interface, n, workers, want)
		case n < workers:
			return fmt.Errorf("ports[%d] %s: %s receives on %d queues, but there are %d workers: `%s`, or engine.workers: %d", i, c.Name, c.Interface, n, workers, want, n)
		}
	}
	return nil
}

// asManyQueues is the command that gives a device as many queues as there are workers.
func asManyQueues(dev string, c *host.Channels, workers int) string {
	if c.Combined {
		return fmt.Sprintf("ethtool -L %s combined %d", dev, workers)
	}
	return fmt.Sprintf("ethtool -L %s rx %d tx %d", dev, workers, workers)
}

// countQueues looks for what checkQueues refuses at the start and may come later: `ethtool -L`, which the kernel allows as long as no queue with a socket goes, or
// a device that is made anew and has more queues. What is ours and comes on those is dropped, so the port must not look well.
func (p *ports) countQueues() {
	for i := range p.cfg.Ports {
		c := &p.cfg.Ports[i]
		if p.owner(i) != i || c.Driver != "af_xdp" || !c.Queues.All {
			continue
		}
		p.deaf[i] = ""
		if now, err := p.host.Channels(c.Interface); err == nil && now.Rx > p.workers {
			p.deaf[i] = fmt.Sprintf("%s receives on %d queues, but there are %d workers, and what comes on the others is lost: `%s`, or restart weir with more workers",
				c.Interface, now.Rx, p.workers, asManyQueues(c.Interface, &now, p.workers))
		}
	}
}
