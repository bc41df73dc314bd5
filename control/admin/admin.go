// Package admin guards the way in to a daemon: who may ask over TCP, for what, and how much of the daemon's time a request may take.
//
// A [Front] listens on an address that a reload may change, and lets through to one handler:
//
//	GET, HEAD       everybody
//	anything else   who has the token; nobody, if there is none
//	/debug/pprof/   only where it is switched on; with a token, who has it
//
// and that only by a name that is ours, but for metrics and health.
//
// [NewServer] is what both it and the unix socket answer by: the same limits on headers, bodies and time. Nothing here knows what the
// handler does, and nothing here runs on a worker.
package admin

import (
	"log/slog"
	"net/http"
	"time"
)

// Limits of a request and of an answer. The longest honest answer is that of /rates, which takes a minute.
const (
	headerTime  = 5 * time.Second
	requestTime = 10 * time.Second
	answerTime  = 75 * time.Second
	idleTime    = time.Minute
	headerBytes = 16 << 10
	bodyBytes   = 64 << 10
)

// NewServer is a server for h that slow and huge requests do not hold up. What goes wrong with single connections is logged as debug:
// whoever can connect could otherwise fill the log.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: http.MaxBytesHandler(h, bodyBytes), ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
