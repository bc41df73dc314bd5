package control

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/control/admin"
)

// FuzzAPI: whatever is asked, the answer is one that the description of the API has, a refusal says why, what only looks changes nothing, and
// the daemon takes its file afterwards as before.
func FuzzAPI(f *testing.F) {
	for i := range operations {
		if o := &operations[i]; o.example != "" {
			method, _, _ := strings.Cut(o.pattern, " ")
			f.Add(method, o.example, []byte(o.send))
		}
	}
	for _, x := range [][3]string{
		{"POST", "/trace?drop=no_service&duration=1ms&count=1&host=198.18.0.0/15"}, {"POST", "/capture?snaplen=14&count=1&rate=1&port=80&proto=tcp&duration=1ms"},
		{"POST", "/sight/end?id=1"}, {"GET", "/events?after=0&kind=reload&level=warn&limit=1&wait=1ms"}, {"GET", "/conns?state=ESTABLISHED&backend=198.18.1.10:8000&limit=1"},
		{"DELETE", "/conns?all=true"}, {"DELETE", "/conns"}, {"HEAD", "/stats"}, {"GET", "/livez"}, {"GET", "/"}, {"PUT", "/stats"},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": 1e3, "state": "drain", "check": {"type": "tcp"}}`},
		{"PATCH", "/services/web/backends/198.18.1.10", `{"weight": 1} {"weight": 2}`}, {"PATCH", "/services/%00/backends/%2f", `{`},
		{"PUT", "/services/web/backends/[2001:db8::1]:80", `{"weight": -1, "address": "198.18.1.300"}`},
		{"POST", "/fdb/add", `{"vni": 99999999, "mac": "ff:ff:ff:ff:ff:ff", "port": "lan", "vtep": "198.18.0.1"}`},
	} {
		f.Add(x[0], x[1], []byte(x[2]))
	}
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || !isMethod(method) {
			return // the library's server refuses it
		}
		b := newAPIBed(t, web("10 2", "11 1")+strings.TrimPrefix(segment(usual), "  []\n"))
		b.control.ports = &ports{cfg: b.core.cfg} // for /readyz
		h := b.control.handler()
		files, generation := b.backends(), b.control.Status().Generation
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", bytes.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		w := httptest.NewRecorder()
		admin.NewServer(h, b.control.log).Handler.ServeHTTP(w, r)

		_, pattern := h.(*routes).Handler(r)
		statuses := []int{http.StatusOK, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusMovedPermanently, http.StatusTemporaryRedirect} // the mux's own
		if i := slices.IndexFunc(operations, func(o operation) bool { return o.pattern == pattern }); i >= 0 {
			statuses = append([]int{http.StatusOK}, operations[i].fails...)
			if pattern == "GET /livez" || pattern == "GET /readyz" {
				statuses = append(statuses, http.StatusServiceUnavailable)
			}
			if text := w.Body.Bytes(); w.Code != http.StatusOK && method != http.MethodHead && !strings.HasSuffix(pattern, "yz") {
				var why struct{ Error, Message string }
				if err := json.Unmarshal(text, &why); err != nil || why.Error+why.Message == "" {
					t.Errorf("%s: %d does not say why: %q (%v)", pattern, w.Code, text, err)
				}
			}
		} else if strings.HasSuffix(pattern, "/takeover") {
			statuses = nil // it is not of the API, and wants a connection
		}
		if statuses != nil && !slices.Contains(statuses, w.Code) && ctx.Err() == nil {
			t.Errorf("%s: %d, want one of %v: %s", pattern, w.Code, statuses, w.Body)
		}
		status := b.control.Status()
		if method == http.MethodGet && status.Generation != generation {
			t.Errorf("generation %d has become %d", generation, status.Generation)
		}
		if w.Code != http.StatusOK && (status.Generation != generation || !slices.Equal(b.backends(), files)) {
			t.Errorf("%d, but %d has become %d: %q", w.Code, generation, status.Generation, b.backends())
		}
		if o := b.must("POST", "/reload", ""); o.Changes != 0 {
			t.Errorf("after a reload: %+v", o)
		}
		b.has("after a reload", files...)
		b.connect()
	})
}

// isMethod says whether a server would take s for a method (RFC 9110 section 5.6.2).
func isMethod(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	}) < 0
}
