package control

import (
	"fmt"
	"io"
	"net/http"

	"weir/control/config"
)

// backendRoutes are services and their backends as resources.
//
//	GET    /services                           all, as /list
//	GET    /services/{service}                 one: by name, VIP:PORT, or PROTOCOL-VIP:PORT
//	POST   /services/{service}/backends        adds a backend: a JSON object with keys of services[].backends[]
//	GET    /services/{service}/backends/{b}    one: by name, or ADDRESS:PORT
//	PATCH  /services/{service}/backends/{b}    changes keys of it
//	PUT    /services/{service}/backends/{b}    makes it be what the object says, adding it if need be
//	DELETE /services/{service}/backends/{b}
//	GET    /config/changes                     what of all this is not in the file
//	GET    /config/diff                        how what runs differs from the file as it is now
func (c *Control) backendRoutes(mux *routes) {
	get := func(path string, view func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := view(r)
			answer(w, v, err)
		})
	}
	change := func(pattern string, change func(*http.Request, config.Object) (Outcome, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			keys, err := keysIn(r)
			if err != nil {
				answer(w, nil, err)
				return
			}
			o, err := change(r, keys)
			if err == nil && !o.OK {
				writeJSON(w, http.StatusUnprocessableEntity, o)
				return
			}
			answer(w, o, err)
		})
	}
	edit := func(op config.EditOp) func(*http.Request, config.Object) (Outcome, error) {
		return func(r *http.Request, keys config.Object) (Outcome, error) {
			return c.Edit(BackendEdit{Op: op, Service: r.PathValue("service"), Backend: r.PathValue("backend"), Keys: keys})
		}
	}
	get("/services", func(*http.Request) (any, error) { return c.Stats().Services, nil })
	get("/services/{service}", func(r *http.Request) (any, error) { return c.Service(r.PathValue("service")) })
	get("/services/{service}/backends", func(r *http.Request) (any, error) {
		s, err := c.Service(r.PathValue("service"))
		return s.Backends, err
	})
	get("/services/{service}/backends/{backend}", func(r *http.Request) (any, error) {
		return c.Backend(r.PathValue("service"), r.PathValue("backend"))
	})
	change("POST /services/{service}/backends", edit(config.EditAdd))
	change("PATCH /services/{service}/backends/{backend}", edit(config.EditSet))
	change("PUT /services/{service}/backends/{backend}", func(r *http.Request, keys config.Object) (Outcome, error) {
		return c.Replace(r.PathValue("service"), r.PathValue("backend"), keys)
	})
	change("DELETE /services/{service}/backends/{backend}", edit(config.EditDelete))
	get("/config/diff", func(*http.Request) (any, error) { return c.Diff() })
	get("/config/changes", func(*http.Request) (any, error) { return c.Edits(), nil })
}

// keysIn is the object in a request's body. A deletion has none.
func keysIn(r *http.Request) (config.Object, error) {
	if r.Method == http.MethodDelete {
		return nil, nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("the request's body: %w", err)
	}
	o, err := config.ParseObject(b)
	if err != nil {
		return nil, fmt.Errorf("the request's body: %w", err)
	}
	return o, nil
}
