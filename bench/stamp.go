package bench

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// A stamp is the last 18 bytes of a frame:
//
//	+-------+--------+-------------------+----------------------------+
//	| magic | stream | number            | when it was due            |
//	| 1     | 1      | 8                 | 8, CLOCK_MONOTONIC in ns   |
//	+-------+--------+-------------------+----------------------------+
//
// It just fits into a UDP datagram of IPv4 in a frame of 64 bytes.
const (
	stampLen   = 18
	stampMagic = 0x77
	// attackMagic is there instead in a frame of an attack, which the far end drops uncounted: what its kernel would do with it is not what is measured.
	attackMagic = 0x78
	// maxNumber keeps two bytes of each stamp zero, so that 24 bits tell a stamp from other bytes.
	maxNumber = 1 << 48
)

func putStamp(b []byte, stream uint8, number uint64, when int64) {
	_ = b[stampLen-1]
	b[0], b[1] = stampMagic, stream
	binary.BigEndian.PutUint64(b[2:], number)
	binary.BigEndian.PutUint64(b[10:], uint64(when))
}

// readStamp reads the stamp at the end of the frame b.
func readStamp(b []byte) (stream uint8, number uint64, when int64, ok bool) {
	if len(b) < 14+stampLen {
		return 0, 0, 0, false
	}
	b = b[len(b)-stampLen:]
	number = binary.BigEndian.Uint64(b[2:])
	return b[1], number, int64(binary.BigEndian.Uint64(b[10:])), b[0] == stampMagic && number < maxNumber
}

// The time in a TCP sequence number is in units of 64 ns, which come round after 274 s.
const tickShift = 6

func ticks(now int64) uint32 { return uint32(now >> tickShift) }

// since is how long before now the time that ticks gave was.
func since(now int64, tick uint32) int64 { return int64(ticks(now)-tick) << tickShift }

// clock is CLOCK_MONOTONIC, which XDP programs and other processes of this host read, too. Go's own monotonic clock is the same one but for
// its zero; it is read without a system call.
type clock struct {
	zero int64
	at   time.Time
}

func newClock() clock {
	best := clock{}
	least := time.Duration(1 << 62)
	for range 16 { // the closest pair of readings
		before := time.Now()
		var ts unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
		if took := time.Since(before); took < least {
			least, best = took, clock{ts.Nano() - int64(took)/2, before}
		}
	}
	return best
}

func (c clock) now() int64 { return c.zero + int64(time.Since(c.at)) }
