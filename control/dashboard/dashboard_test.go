package dashboard

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

func served(h *Hub) http.Handler {
	mux := http.NewServeMux()
	Register(mux, h)
	return mux
}

func ask(h http.Handler, method, url string, header ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, url, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

// TestFiles fetches the page and everything it names, and nothing else, by all methods.
func TestFiles(t *testing.T) {
	h := served(NewHub(&counted{}))
	for _, x := range []struct{ url, contentType string }{
		{"/", "text/html"}, {"/dashboard.css", "text/css"}, {"/dashboard.js", "text/javascript"}, {"/chart.js", "text/javascript"}, {"/icon.svg", "image/svg+xml"},
	} {
		w := ask(h, "GET", x.url)
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), x.contentType) || w.Body.Len() == 0 {
			t.Errorf("GET %s: %d %v", x.url, w.Code, w.Header())
		}
		if p := w.Header().Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || strings.Contains(p, "*") {
			t.Errorf("GET %s: policy %q", x.url, p)
		}
		for _, name := range []string{"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy"} {
			if w.Header().Get(name) == "" {
				t.Errorf("GET %s: no %s", x.url, name)
			}
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("GET %s: other origins may read it", x.url)
		}
		if again := ask(h, "GET", x.url, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("GET %s once more: %d", x.url, again.Code)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if w := ask(h, method, x.url); w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusNotFound {
				t.Errorf("%s %s: %d", method, x.url, w.Code)
			}
		}
	}
	for _, url := range []string{"/index.html", "/assets/dashboard.js", "/dashboard.go", "/x"} {
		if w := ask(h, "GET", url); w.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d", url, w.Code)
		}
	}
}

// TestPageIsItsOwn: the page asks nobody but its origin for anything, brings no script or style inside its markup, and all that it names is there.
func TestPageIsItsOwn(t *testing.T) {
	h := served(NewHub(&counted{}))
	all, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile(`(?i)<script(?:>|\s+(?:[^>]*\s)?>)|<style|\sstyle=|\son[a-z]+=|javascript:`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function`)
	names := regexp.MustCompile(`(?:href|src|from|EventSource)\s*[=(]?\s*"([^"#?]+)`)
	for _, f := range all {
		text, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		source := strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", "") // names a language, not a place
		if m := elsewhere.FindString(source); m != "" {
			t.Errorf("%s names another origin: %s", f.Name(), m)
		}
		switch path.Ext(f.Name()) {
		case ".html":
			if m := inline.FindString(strings.ReplaceAll(source, `<script type="module" src=`, "")); m != "" {
				t.Errorf("%s has %q inside, which the policy forbids", f.Name(), m)
			}
		case ".js":
			if m := markup.FindString(source); m != "" {
				t.Errorf("%s makes markup of text: %s", f.Name(), m)
			}
		}
		for _, m := range names.FindAllStringSubmatch(source, -1) {
			url := "/" + strings.TrimPrefix(m[1], "./")
			if url == "/metrics" { // somebody else answers
				continue
			}
			if w := ask(h, "HEAD", url); w.Code != 200 {
				t.Errorf("%s names %s: %d", f.Name(), m[1], w.Code)
			}
		}
	}
}
