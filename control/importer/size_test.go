package importer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLargeInput: sixteen times as many servers take some sixteen times as long, not 256 times: a short sequence of keepalived's writes tens of
// thousands. The limit is far from both, since a shared machine slows down whatever takes long.
func TestLargeInput(t *testing.T) {
	sequence := func(n int) string {
		return fmt.Sprintf("virtual_server 198.18.0.1 80 {\n~SEQ(I, 1, %d) real_server 198.18.1.1 $I { weight 1 }\n}\n", n)
	}
	group := func(n int) string {
		return fmt.Sprintf("virtual_server_group g {\n~SEQ(I, 1, %d) 198.18.1.1 $I\n}\nvirtual_server group g {\nreal_server 198.18.1.2 80 {\n}\n}\n", n)
	}
	rules := func(n int) string {
		var b strings.Builder
		b.WriteString("-A -t 198.18.0.1:80 -s rr\n")
		for i := range n {
			fmt.Fprintf(&b, "-a -t 198.18.0.1:80 -r 198.18.1.1:%d -m\n", i+1)
		}
		for i := range n / 2 {
			fmt.Fprintf(&b, "-d -t 198.18.0.1:80 -r 198.18.1.1:%d\n", i+1)
		}
		return b.String()
	}
	keepalived := func(text string) Result {
		return Keepalived("/k.conf", []byte(text), "edge1", Options{Resolver: names{}})
	}
	ipvsadm := func(text string) Result { return IPVSAdm("/rules", []byte(text), Options{Resolver: names{}}) }
	for _, x := range []struct {
		name string
		text func(int) string
		do   func(string) Result
	}{
		{"keepalived's servers", sequence, keepalived},
		{"keepalived's group", group, keepalived},
		{"ipvsadm's servers", rules, ipvsadm},
	} {
		took := func(n int) time.Duration {
			at := time.Now()
			if r := x.do(x.text(n)); len(r.Config) == 0 {
				t.Fatalf("%s: %d came to nothing: %v", x.name, n, r.Errors[:min(len(r.Errors), 3)])
			}
			return time.Since(at)
		}
		few, many := min(took(2000), took(2000), took(2000)), time.Duration(0)
		for tries := 0; tries == 0 || many > 128*few && tries < 3; tries++ {
			many = took(32000)
			t.Logf("%s: 2,000 in %v, 32,000 in %v", x.name, few, many)
		}
		if many > 128*few {
			t.Errorf("%s: 2,000 in %v, 32,000 in %v, three times", x.name, few, many)
		}
	}
}
