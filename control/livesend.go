package control

import (
	"fmt"

	"weir/dataplane/driver/afxdp"
)

// sendsLive reports whether port i, which has a device of its own, is to send live frames.
func (p *ports) sendsLive(i int) bool { return p.owner(i) == i && p.cfg.Ports[i].XDPSend == "live" }

// openLive prepares to send live frames, if a port is to. Without them rings do it.
func (p *ports) openLive() {
	n := 0
	p.unlive = map[int]string{}
	for i := range p.cfg.Ports {
		if p.sendsLive(i) {
			n += p.workers
		}
	}
	if n == 0 {
		return
	}
	live, err := afxdp.NewLive(n)
	for i := range p.cfg.Ports {
		if err != nil && p.sendsLive(i) {
			p.notLive(i, err.Error())
		}
	}
	p.live = live
}

// enliven gives a queue of port i what it sends live frames by.
func (p *ports) enliven(i int, q *afxdp.Queue) {
	if p.live != nil && p.sendsLive(i) {
		q.SendLive(p.live)
	}
}

// tendLive has queues send live frames as long as their devices take XDP frames.
func (p *ports) tendLive() {
	if p.live == nil {
		return
	}
	for i := range p.cfg.Ports {
		if !p.sendsLive(i) {
			continue
		}
		index, why := p.mirror.State().Links[i].Index, ""
		if index != 0 {
			switch takes, err := p.host.TakesXDPFrames(index); {
			case err != nil:
				why = err.Error()
			case !takes:
				why = "the device takes no XDP frames (one end of a veth does while the other has an XDP program or GRO: ethtool -K DEV gro on)"
			}
		}
		for _, r := range p.rings {
			if r.port == i {
				r.queue.SetLive(index != 0 && why == "")
			}
		}
		p.notLive(i, why)
	}
}

// notLive notes why port i does not send live frames, if it does not.
func (p *ports) notLive(i int, why string) {
	if was, told := p.unlive[i]; told && was == why {
		return
	}
	p.unlive[i] = why
	if name := p.cfg.Ports[i].Name; why == "" {
		p.log.Info("sends live frames", "kind", "port", "port", name)
	} else {
		p.log.Warn("sends by its ring", "kind", "port", "port", name, "why", why)
	}
}

// notLives are warnings of ports that do not send live frames.
func (p *ports) notLives() (all []string) {
	for i, why := range p.unlive {
		if why != "" {
			all = append(all, fmt.Sprintf("xdp_send of %s: it sends by its ring: %s", p.cfg.Ports[i].Name, why))
		}
	}
	return all
}
