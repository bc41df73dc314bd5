package dashboard

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// ServeHTTP is one viewer's stream. A page of another origin may not even take a viewer's place: browsers would not let it read the answer, but
// sixteen frames of it would lock everybody else out.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if foreign(r) {
		fail(w, http.StatusForbidden, "asked by a page of another origin")
		return
	}
	q, err := ParseQuery(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if r.Method == http.MethodHead {
		header.Set("Content-Type", "text/event-stream")
		return
	}
	v := h.join(q)
	if v == nil {
		header.Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "too many viewers, or the daemon stops")
		return
	}
	defer h.leave(v)
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx in front would collect 4 KiB first
	out := http.NewResponseController(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case text, more := <-v.out:
			if !more {
				return
			}
			// The server's deadline is for answers that end. This one begins anew with each message, so a viewer that reads nothing is gone soon.
			_ = out.SetWriteDeadline(time.Now().Add(h.write)) // not in tests, whose writer has none
			if _, err := w.Write(text); err != nil {
				return
			}
			if out.Flush() != nil {
				return
			}
		}
	}
}

// foreign reports whether a browser says that another origin's page asks. What is no browser says nothing.
func foreign(r *http.Request) bool {
	if s := r.Header.Get("Sec-Fetch-Site"); s != "" && s != "same-origin" && s != "none" {
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": why}) // the client went away
}
