package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// open are the paths that every name is good for: monitoring asks for them by whatever name it knows us.
var open = map[string]bool{"/metrics": true, "/livez": true, "/readyz": true}

// named reports whether r asks for us by a name that is ours: an address, localhost, the host's own name, or one of hosts. A page of an attacker who
// has pointed a name of his at our address (DNS rebinding) is of our origin to a browser, so CORS does not keep it out; but the name is his.
func named(r *http.Request, hosts []string) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == "localhost" || host == "" {
		return true
	}
	for _, h := range hosts {
		if strings.EqualFold(host, h) {
			return true
		}
	}
	own, err := os.Hostname()
	return err == nil && strings.EqualFold(host, own)
}

// misnamed says what to do about a name that is not ours.
func misnamed(r *http.Request) error {
	return fmt.Errorf("%q is no name of this host: add it to admin.hosts, or use the address", r.Host)
}
