package control

import (
	"fmt"
	"net/http"
	"strconv"
)

// routes is a mux that knows what it was told, so that the description of the API can be held to it.
type routes struct {
	http.ServeMux
	patterns []string
}

// HandleFunc is that of http.ServeMux.
func (m *routes) HandleFunc(pattern string, f func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(f))
}

// Handle is that of http.ServeMux.
func (m *routes) Handle(pattern string, h http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.Handle(pattern, h)
}

// flagOf is whether a request asks for something that is on or off.
func flagOf(r *http.Request, name string) (bool, error) {
	s := r.FormValue(name)
	if s == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%s %q: must be true or false", name, s)
	}
	return on, nil
}
