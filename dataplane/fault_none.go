//go:build !chaosfaults

package dataplane

// spoil does nothing. fault_planted.go has what it does in a build that the chaos suite must find guilty.
func (w *Worker) spoil() {}
