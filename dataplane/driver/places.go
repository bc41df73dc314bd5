package driver

// Places are where the chunks that a queue holds are, for [Placer].
type Places struct {
	Fill       int `json:"fill"`       // in the fill ring, for the kernel to receive into
	Rx         int `json:"rx"`         // received, not fetched
	Tx         int `json:"tx"`         // in the send ring, not taken by the kernel
	Completion int `json:"completion"` // sent, not fetched
	Kernel     int `json:"kernel"`     // in the kernel's hands: what it holds less the four
	Owned      int `json:"owned"`      // chunks marked as the queue's, counted one by one: what it holds, or one is lost or in two places
}

// Placer is a queue that can say where its chunks are. Places is called by its worker, like the rest of [Queue], but for looking after things, not for
// packets: it takes as long as the pool is large.
type Placer interface{ Places() Places }
