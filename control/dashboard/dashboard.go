// Package dashboard shows a daemon in a browser: one page that needs nothing but its own origin, kept up to date by server-sent events.
//
//	GET /                   the page, and its style sheet, scripts and icon beside it
//	GET /api/live?QUERY     text/event-stream: hello once, then a sample a second, and news when there are any
//
// A [Hub] has one sampler for all viewers, which runs while there is one: nobody watching costs nothing. How many may watch is bounded, and a viewer
// that does not keep up is dropped; browsers come back by themselves. What is sampled, and how it is searched, is the [Source]'s business; nothing here
// runs on a worker, and nothing can be changed by it.
//
// Names come from configurations and are hostile until proven otherwise: they travel as JSON and reach the page as text, never as markup, and the page's
// Content-Security-Policy allows no script but those beside it.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

// policy lets the page load its own files and connect to its own origin, be framed by nobody, and submit nothing. That the page's colours are
// of its own style sheet, and widths are set by script through the CSSOM, needs no 'unsafe-inline'.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Register adds the page, its files and the stream to mux.
func Register(mux *http.ServeMux, h *Hub) {
	all, err := assets.ReadDir("assets")
	if err != nil {
		panic(err) // they are compiled in
	}
	for _, f := range all {
		at := "/" + f.Name()
		if f.Name() == "index.html" {
			at = "/{$}"
		}
		mux.Handle("GET "+at, page(f.Name()))
	}
	mux.Handle("GET /api/live", h)
}

// types are the content types of the files, by extension: the host's table of them may say otherwise.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// page answers with an embedded file. A browser asks each time whether it is still the same, so a new weir never meets an old script.
func page(name string) http.Handler {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err)
	}
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(text))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", types[path.Ext(name)])
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})
}
