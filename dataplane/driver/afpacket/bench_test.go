package afpacket

import (
	"fmt"
	"testing"
	"time"

	"weir/dataplane/packet"
)

// Through a queue and back to the far end, in ns a frame. The far end's sendto and read are in it; they take most of the time, so this
// compares vectors and lengths, not drivers.
func BenchmarkForward(b *testing.B) {
	for _, vector := range []int{1, 32, 256} {
		for _, size := range []int{60, 1514} {
			b.Run(fmt.Sprintf("vector=%d/bytes=%d", vector, size), func(b *testing.B) {
				namespace(b)
				addVeth(b, 1500)
				q, p := open(b, newPool(b, 1024), Options{}), newPeer(b)
				frame, d := experiment(size), make([]packet.Desc, vector)
				buf := make([]byte, 2048)
				inQueue := time.Duration(0)
				b.ReportAllocs()
				frames := 0
				for b.Loop() {
					if frames++; frames%vector != 0 {
						continue // one iteration is one frame
					}
					for range vector {
						p.inject(frame)
					}
					begin := time.Now()
					for n := 0; n < vector; {
						k := q.Receive(d[:vector-n])
						q.Send(d[:k])
						q.Flush()
						n += k
					}
					inQueue += time.Since(begin)
					for range vector {
						p.take(buf)
					}
				}
				b.ReportMetric(float64(inQueue.Nanoseconds())/float64(frames), "ns-in-queue/op")
				if s := q.Stats(); s.SendLost > 0 {
					b.Errorf("stats %+v: frames were lost", s)
				}
			})
		}
	}
}
