package suite

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Proxies end the client's connection and open one of their own to a server: TCP only.
var (
	haproxy = peer{name: "HAProxy (tcp)", needs: []string{"haproxy"}, start: startHAProxy}
	stream  = peer{name: "nginx stream", needs: []string{"nginx"}, start: startStream}
)

// proxy gives the device under test the VIP, which a proxy listens on, and room for its connections to servers.
func (b *bed) proxy() error {
	for key, value := range map[string]string{"net/ipv4/ip_local_port_range": "1024 65535", "net/ipv4/tcp_tw_reuse": "1", "net/core/somaxconn": "4096"} {
		if err := b.dut.Sysctl(key, value); err != nil {
			return err
		}
	}
	return b.dut.Address("lo", vip+"/32")
}

func startHAProxy(s *session, b *bed) (*running, error) {
	if err := b.proxy(); err != nil {
		return nil, err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "global\n  maxconn 8000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"+
		"listen web\n  bind %s:%d\n  balance roundrobin\n", vip, vipHTTP)
	for i := range servers {
		fmt.Fprintf(&text, "  server s%d %s:%d\n", i, nth(i), httpPort)
	}
	file := filepath.Join(s.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		return nil, err
	}
	r, err := spawn(b.dut, b.listening(vip, vipHTTP), "haproxy", "-db", "-f", file)
	if err != nil {
		return nil, err
	}
	r.mode, r.url = "mode tcp, one thread", fmt.Sprintf("http://%s:%d/", vip, vipHTTP)
	return r, nil
}

func startStream(s *session, b *bed) (*running, error) {
	if err := b.proxy(); err != nil {
		return nil, err
	}
	var text strings.Builder
	text.WriteString("stream {\n  upstream web {\n")
	for i := range servers {
		fmt.Fprintf(&text, "    server %s:%d;\n", nth(i), httpPort)
	}
	fmt.Fprintf(&text, "  }\n  server { listen %s:%d backlog=4096; proxy_pass web; }\n}\n", vip, vipHTTP)
	r, err := s.nginx(b, "proxy", text.String(), b.listening(vip, vipHTTP))
	if err != nil {
		return nil, err
	}
	r.mode, r.url = "stream, one worker", fmt.Sprintf("http://%s:%d/", vip, vipHTTP)
	return r, nil
}

// nginx starts one in the foreground: in dut as proxy, or in server as what is behind.
func (s *session) nginx(b *bed, name, config string, ready func() bool) (*running, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	head := "daemon off;\nworker_processes 1;\npid " + dir + "/pid;\nerror_log stderr crit;\nevents { worker_connections 20000; }\nworker_rlimit_nofile 50000;\n"
	if strings.HasPrefix(config, "stream") {
		for _, module := range []string{"/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"} {
			if _, err := os.Stat(module); err == nil {
				head = "load_module " + module + ";\n" + head
				break
			}
		}
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(head+config), 0o644); err != nil {
		return nil, err
	}
	space := b.dut
	if name == "server" {
		space = b.server
	}
	return spawn(space, ready, "nginx", "-p", dir, "-e", "stderr", "-c", file)
}

// listening asks from the client's side whether something accepts, as a client would.
func (b *bed) listening(address string, port int) func() bool {
	return func() bool { return b.client.Exec(func() error { return dial(address, port) }) == nil }
}

// dial opens a TCP connection from the thread's namespace, and closes it.
func dial(address string, port int) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, port), 200*time.Millisecond)
	if err != nil {
		return err
	}
	return c.Close()
}
