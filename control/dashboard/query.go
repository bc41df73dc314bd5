package dashboard

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

// Query is what a viewer wants to see of the things of which there may be thousands.
type Query struct {
	Search   string // part of a service's or backend's name or address; empty: all
	Only     string // all, trouble (a backend is not up) or traffic (it has some now)
	Sort     string // one of Sorts
	Reverse  bool
	Offset   int    // of the first service
	Limit    int    // services
	Segments string // part of a segment's VNI or VTEP, or of a peer; empty: all
}

// What a query may ask for. The first is the default.
var (
	Onlys = []string{"all", "trouble", "traffic"}
	Sorts = []string{"order", "name", "conns", "active", "packets", "bits", "down"}
)

// Bounds of a query.
const (
	DefaultLimit = 25
	maxLimit     = 100
	maxOffset    = 1 << 20
	maxSearch    = 128 // bytes
)

// ParseQuery reads the parameters of a request for the stream. Unknown ones are left alone.
func ParseQuery(v url.Values) (q Query, err error) {
	q.Search, q.Segments = v.Get("q"), v.Get("segments")
	if len(q.Search) > maxSearch || len(q.Segments) > maxSearch {
		return q, fmt.Errorf("q or segments: must be %d bytes long at most", maxSearch)
	}
	for _, x := range []struct {
		key   string
		to    *string
		among []string
	}{{"only", &q.Only, Onlys}, {"sort", &q.Sort, Sorts}} {
		if *x.to = v.Get(x.key); *x.to == "" {
			*x.to = x.among[0]
		}
		if !slices.Contains(x.among, *x.to) {
			return q, fmt.Errorf("%s %q: must be one of %v", x.key, *x.to, x.among)
		}
	}
	q.Reverse = v.Get("reverse") == "1"
	if q.Offset, err = number(v, "offset", 0, 0, maxOffset); err != nil {
		return q, err
	}
	q.Limit, err = number(v, "limit", DefaultLimit, 1, maxLimit)
	return q, err
}

func number(v url.Values, key string, otherwise, least, most int) (int, error) {
	s := v.Get(key)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s %q: must be %d to %d", key, s, least, most)
	}
	return n, nil
}
