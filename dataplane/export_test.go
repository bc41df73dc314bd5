package dataplane

import "time"

// SleepAtMost sets how long the runner sleeps at a time, before it starts.
func (r *Runner) SleepAtMost(d time.Duration) { r.longest = d }

// TakeChunk loses a chunk.
func (w *Worker) TakeChunk() { w.pool.Get() }
