package control

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// TestSightIsBounded: workers hold every frame against all conditions, so nobody gets thousands of them in, by the query or by the body.
func TestSightIsBounded(t *testing.T) {
	b := newCoreBed(t, web("10 1"))
	for _, c := range []struct {
		name  string
		hosts int
		body  bool
		good  bool
	}{
		{"as many as may be", sightValues, false, true},
		{"one more", sightValues + 1, false, false},
		{"thousands in the body", 4000, true, false},
	} {
		q := strings.TrimSuffix(strings.Repeat("host=198.18.0.2&", c.hosts), "&")
		r := httptest.NewRequest("POST", "/trace?"+q, nil)
		if c.body {
			r = httptest.NewRequest("POST", "/trace", strings.NewReader(q))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		got, err := b.core.sightRequestOf(r)
		if (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.good && len(got.filter.Hosts) != c.hosts {
			t.Errorf("%s: %d hosts", c.name, len(got.filter.Hosts))
		}
	}
}
