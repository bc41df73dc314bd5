package dashboard

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// counted is a source that counts what it is asked.
type counted struct {
	mu    sync.Mutex
	takes int
	anew  int
	last  uint64
	query map[Query]int
}

func (c *counted) Take(_ time.Time, anew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.takes++; anew {
		c.anew++
	}
}

func (c *counted) Hello() any { return "hello </script>\n" }

func (c *counted) View(q Query) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.query == nil {
		c.query = map[Query]int{}
	}
	c.query[q]++
	return map[string]any{"take": c.takes, "q": q.Search}
}

func (c *counted) News(since uint64) (any, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == since {
		return nil, since
	}
	return fmt.Sprint(since, "-", c.last), c.last
}

func (c *counted) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
}

func (c *counted) sum() (takes, anew int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takes, c.anew
}

func quick(s Source) *Hub {
	h := NewHub(s)
	h.every = 5 * time.Millisecond
	return h
}

// stream opens a stream and returns its lines.
func stream(t *testing.T, url string) (*bufio.Scanner, func()) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %s %v", url, resp.Status, resp.Header)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewScanner(resp.Body), func() { resp.Body.Close() }
}

// next is the next event of a stream: its name and data.
func next(t *testing.T, s *bufio.Scanner) (name, data string) {
	t.Helper()
	for s.Scan() {
		switch line := s.Text(); {
		case strings.HasPrefix(line, "event: "):
			name = line[7:]
		case strings.HasPrefix(line, "data: "):
			data = line[6:]
		case line == "":
			return name, data
		default:
			t.Fatalf("a line %q", line)
		}
	}
	t.Fatalf("the stream ended: %v", s.Err())
	return "", ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (h *Hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.runs
}

// TestStream watches: hello, what has happened, the sample of before, then a sample a tick, and what happens. Without viewers nobody samples.
func TestStream(t *testing.T) {
	source := &counted{last: 3}
	h := quick(source)
	server := httptest.NewServer(served(h))
	t.Cleanup(server.Close) // after the streams, which it would wait for
	time.Sleep(20 * time.Millisecond)
	if takes, _ := source.sum(); takes != 0 {
		t.Errorf("%d samples for nobody", takes)
	}
	s, done := stream(t, server.URL+"/api/live?q=web")
	if name, data := next(t, s); name != "hello" || data != `"hello \u003c/script\u003e\n"` {
		t.Errorf("%s %s", name, data)
	}
	if name, data := next(t, s); name != "news" || data != `"0-3"` {
		t.Errorf("%s %s", name, data)
	}
	if name, data := next(t, s); name != "sample" || data != `{"q":"web","take":1}` {
		t.Errorf("%s %s", name, data)
	}
	other, doneToo := stream(t, server.URL+"/api/live?q=db")
	for _, want := range []string{"hello", "news", "sample"} {
		if name, data := next(t, other); name != want || want == "sample" && !strings.HasPrefix(data, `{"q":"db",`) {
			t.Errorf("%s %s, want %s", name, data, want)
		}
	}
	source.add()
	news := func(s *bufio.Scanner) {
		t.Helper()
		for range 1000 {
			if name, data := next(t, s); name == "news" {
				if data != `"3-4"` {
					t.Errorf("news %s", data)
				}
				return
			}
		}
		t.Error("no news")
	}
	news(s)
	news(other)
	done()
	doneToo()
	eventually(t, "the sampler ends", h.idle)
	takes, anew := source.sum()
	time.Sleep(20 * time.Millisecond)
	if now, _ := source.sum(); now != takes || anew != 1 {
		t.Errorf("%d samples, then %d; %d times anew", takes, now, anew)
	}
	// Somebody comes back.
	s, _ = stream(t, server.URL+"/api/live")
	if name, _ := next(t, s); name != "hello" {
		t.Error("no hello")
	}
	if _, anew := source.sum(); anew != 2 {
		t.Errorf("%d times anew", anew)
	}
}

// TestManyViewers: beyond the limit they are refused until one goes, and when the hub closes all streams end.
func TestManyViewers(t *testing.T) {
	h := quick(&counted{})
	h.viewers = 3
	server := httptest.NewServer(served(h))
	t.Cleanup(server.Close) // after the streams, which it would wait for
	var all []*bufio.Scanner
	var leave func()
	for range 3 {
		s, done := stream(t, server.URL+"/api/live")
		all, leave = append(all, s), done
	}
	refused := func() bool {
		resp, err := http.Get(server.URL + "/api/live")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
	}
	if !refused() {
		t.Error("a fourth may watch")
	}
	leave()
	eventually(t, "there is room again", func() bool { return !refused() })
	h.Close()
	for _, s := range all[:2] {
		for s.Scan() {
		}
		if s.Err() != nil {
			t.Error(s.Err())
		}
	}
	if !refused() {
		t.Error("one may watch a hub that is closed")
	}
	eventually(t, "the sampler ends", h.idle)
}

// TestSlowViewer: who does not read is dropped, and the others go on.
func TestSlowViewer(t *testing.T) {
	h := quick(&counted{})
	slow, good := h.join(Query{Search: "slow"}), h.join(Query{Search: "good"})
	got := 0
	for text := range good.out {
		if !strings.HasPrefix(string(text), "event: ") || !strings.HasSuffix(string(text), "\n\n") {
			t.Fatalf("%q", text)
		}
		if got++; got == 2*backlog+2 {
			break
		}
	}
	if got < 2*backlog+2 {
		t.Errorf("the good one got %d", got)
	}
	n := 0
	for range slow.out { // ends, for it was closed
		n++
	}
	if n > backlog {
		t.Errorf("%d messages waited", n)
	}
	h.leave(good)
	h.leave(slow)
	eventually(t, "the sampler ends", h.idle)
}

// TestSameQuery: viewers who ask for the same share one view.
func TestSameQuery(t *testing.T) {
	source := &counted{}
	h := quick(source)
	a, b := h.join(Query{Search: "x"}), h.join(Query{Search: "x"})
	for range 3 * backlog {
		<-a.out
		<-b.out
	}
	h.leave(a)
	h.leave(b)
	eventually(t, "the sampler ends", h.idle)
	source.mu.Lock()
	defer source.mu.Unlock()
	if n := source.query[Query{Search: "x"}]; n > source.takes+2 { // one for each greeting
		t.Errorf("%d views of %d samples", n, source.takes)
	}
}

// TestForeign: a page of another origin does not take a viewer's place.
func TestForeign(t *testing.T) {
	h := quick(&counted{})
	mux := served(h)
	for _, x := range []struct {
		header []string
		status int
	}{
		{nil, 200},
		{[]string{"Origin", "http://192.0.2.1:9180"}, 200},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Sec-Fetch-Site", "none"}, 200},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Origin", "http://192.0.2.1"}, 403},
		{[]string{"Origin", "http://attacker.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Origin", "%"}, 403},
	} {
		if w := ask(mux, "HEAD", "http://192.0.2.1:9180/api/live", x.header...); w.Code != x.status {
			t.Errorf("%v: %d, want %d", x.header, w.Code, x.status)
		}
	}
	if w := ask(mux, "POST", "/api/live"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	if !h.idle() {
		t.Error("somebody watches")
	}
}

func TestParseQuery(t *testing.T) {
	plain := Query{Only: "all", Sort: "order", Limit: DefaultLimit}
	with := func(change func(*Query)) Query {
		q := plain
		change(&q)
		return q
	}
	for text, want := range map[string]Query{
		"":                              plain,
		"unknown=1":                     plain,
		"q=web&segments=5001":           with(func(q *Query) { q.Search, q.Segments = "web", "5001" }),
		"only=trouble&sort=bits":        with(func(q *Query) { q.Only, q.Sort = "trouble", "bits" }),
		"reverse=1&offset=50&limit=100": with(func(q *Query) { q.Reverse, q.Offset, q.Limit = true, 50, 100 }),
	} {
		v, _ := url.ParseQuery(text)
		if got, err := ParseQuery(v); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	mux := served(NewHub(&counted{}))
	for _, text := range []string{"only=none", "sort=size", "offset=-1", "offset=x", "offset=1048577", "limit=0", "limit=101", "limit=1e3", "q=" + strings.Repeat("x", 129), "segments=" + strings.Repeat("x", 129)} {
		if w := ask(mux, "GET", "/api/live?"+text); w.Code != 400 || !strings.Contains(w.Body.String(), strings.SplitN(text, "=", 2)[0]) {
			t.Errorf("%q: %d %s", text, w.Code, w.Body)
		}
	}
}
