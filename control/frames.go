package control

import (
	"time"

	"weir/dataplane/driver"
)

// FramesView is where the chunks of one worker's frame memory are: chunks = free + holding + what each queue holds, at any time. A sum that is
// another means that weir has lost memory, and missing says how much.
type FramesView struct {
	Worker  int               `json:"worker"`
	Chunks  int               `json:"chunks"`
	Free    int               `json:"free"`
	Holding int               `json:"holding"` // frames that wait for a neighbour, or for the first fragment of their datagram
	Missing int               `json:"missing"` // in no place; negative: in two
	Queues  []FramesQueueView `json:"queues"`
}

// FramesQueueView is one queue's part.
type FramesQueueView struct {
	Interface string         `json:"interface"`
	Held      int            `json:"held"`
	Places    *driver.Places `json:"places,omitempty"` // where the driver can tell
}

// auditLimit is how long a worker may take to come to the end of a round.
const auditLimit = 2 * time.Second

// Frames has every worker count its chunks. One that does not come round within two seconds is left out.
func (c *Control) Frames() []FramesView {
	c.auditing.Lock()
	defer c.auditing.Unlock()
	c.mu.Lock()
	names := map[int]string{}
	for i, p := range c.engine.Snapshot().Ports {
		names[p.Device] = c.cfg.Ports[i].Interface
	}
	c.mu.Unlock()
	views := []FramesView{}
	for i, r := range c.runners {
		a, ok := r.Audit(auditLimit)
		if !ok {
			continue
		}
		v := FramesView{Worker: i, Chunks: a.Chunks, Free: a.Free, Holding: a.Holding, Missing: a.Missing(), Queues: []FramesQueueView{}}
		for _, q := range a.Queues {
			x := FramesQueueView{Interface: names[q.Port], Held: q.Held}
			if q.Placed {
				x.Places = &q.Places
			}
			v.Queues = append(v.Queues, x)
		}
		views = append(views, v)
	}
	return views
}
