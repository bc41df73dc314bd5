package steer

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/dataplane/packet"
)

// benchCases are packets by how much must be asked about them.
func benchCases() []ruleCase {
	pick := map[string]bool{
		"service, IPv4": true, "service, IPv6": true, "service, port range: within": true, "a server's answer": true,
		"VXLAN: a VNI of ours": true, "routed through": true, "SSH": true, "likewise, quoting options": true,
		"service behind 6 extension headers": true, "prefix: its last address": true, "tunnel: IPIP, too big": true,
	}
	var out []ruleCase
	for _, c := range packetCases() {
		if pick[c.name] {
			out = append(out, c)
		}
	}
	return out
}

// benchRules are rules without a prefix, as most are, and with some: then what goes to nobody known is looked for in these, too.
func benchRules() map[string]*Rules {
	plain := testRules()
	plain.Services = slices.DeleteFunc(plain.Services, func(s Service) bool { return !s.VIP.IsSingleIP() })
	return map[string]*Rules{"plain": plain, "prefixes": testRules()}
}

// BenchmarkProgram is the program's time alone, in a loop within the kernel. What is taken finds no socket here: a look-up of the
// heartbeat's age and a second counter stand for the redirect.
func BenchmarkProgram(b *testing.B) {
	for name, r := range benchRules() {
		b.Run(name, func(b *testing.B) { benchProgram(b, r) })
	}
}

func benchProgram(b *testing.B, r *Rules) {
	p, c := loaded(b, r, Options{}), compiled(r)
	for name, prog := range map[string]*ebpf.Program{"xdp": p.xdp, "tc": p.tc} {
		if prog == nil {
			continue
		}
		if info, err := prog.Info(); err == nil {
			if n, ok := info.VerifiedInstructions(); ok {
				b.Logf("%s: the verifier went through %d instructions", name, n)
			}
		}
		for _, tt := range benchCases() {
			b.Run(name+"/"+twin(b, c, 0, frame(tt.packet)).String()+"/"+tt.name, func(b *testing.B) {
				_, each, err := prog.Benchmark(frame(tt.packet), b.N, b.ResetTimer)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(each)/float64(time.Nanosecond), "ns/run")
			})
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for name, r := range benchRules() {
		b.Run(name, func(b *testing.B) { benchClassify(b, compiled(r)) })
	}
}

func benchClassify(b *testing.B, c *Compiled) {
	for _, tt := range benchCases() {
		b.Run(twin(b, c, 0, frame(tt.packet)).String()+"/"+tt.name, func(b *testing.B) {
			pool, err := packet.NewPool(make([]byte, 2048), 2048)
			if err != nil {
				b.Fatal(err)
			}
			var f packet.Frame
			in := frame(tt.packet)
			copy(pool.Memory(), in)
			f.Open(pool, packet.Desc{Len: uint32(len(in))})
			b.ReportAllocs()
			want := Classify(c, 0, &f)
			for b.Loop() {
				if Classify(c, 0, &f) != want {
					b.Fatal("wrong verdict")
				}
			}
		})
	}
}

// manyRules are 10,000 services with ten servers each, every one another address and port.
func manyRules(shift int) *Rules {
	r := testRules()
	for i := range 10_000 {
		r.Services = append(r.Services, Service{VIP: One(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})), Protocol: packet.ProtoTCP, From: 80, To: 80})
		for j := range 10 {
			n := i*10 + j
			if i%10 == 0 && j == 0 {
				n += shift // a tenth of the services has another server
			}
			r.Servers = append(r.Servers, Server{Addr: netip.AddrFrom4([4]byte{10, byte(n >> 14), byte(n >> 8 & 63), byte(n)}), Protocol: packet.ProtoTCP, Port: 8000})
		}
	}
	return r
}

// BenchmarkReload10k is what a reload costs the steering: the twin's tables, and the kernel's before and after the publication.
func BenchmarkReload10k(b *testing.B) {
	rules := []*Rules{manyRules(0), manyRules(100_000)}
	b.Run("compile", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := Compile(rules[i&1]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			loaded(b, rules[0], Options{}).Close()
		}
	})
	b.Run("add+remove", func(b *testing.B) {
		p := loaded(b, rules[0], Options{})
		b.ReportAllocs()
		for i := 1; b.Loop(); i++ {
			if err := p.Add(rules[i&1]); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Remove(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
