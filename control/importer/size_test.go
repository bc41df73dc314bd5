package importer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLargeInput: eight times as many servers take some eight times as long, not sixty-four: a short sequence of keepalived's writes tens of thousands.
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
			least := time.Hour
			for range 3 {
				at := time.Now()
				if r := x.do(x.text(n)); len(r.Config) == 0 {
					t.Fatalf("%s: %d came to nothing: %v", x.name, n, r.Errors[:min(len(r.Errors), 3)])
				}
				least = min(least, time.Since(at))
			}
			return least
		}
		few, many := took(2000), took(16000)
		t.Logf("%s: 2,000 in %v, 16,000 in %v", x.name, few, many)
		if many > 24*few {
			t.Errorf("%s: 2,000 in %v, 16,000 in %v", x.name, few, many)
		}
	}
}
