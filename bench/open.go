package bench

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf/rlimit"
	"github.com/safchain/ethtool"

	"weir/dataplane/driver"
	"weir/dataplane/driver/afpacket"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
)

// Names of drivers.
const (
	AFXDP    = "af_xdp"
	AFPacket = "af_packet"
	Mem      = "mem" // two ports joined by a cable in memory: the generator's own limit
	XDP      = "xdp" // sends by an XDP program run with live frames, receives by one that counts and drops
)

const (
	poolChunks = 16384
	chunkSize  = 4096 // frames up to maxSize behind the headroom
)

// device finds a network device that is up.
func device(name string) (*net.Interface, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if dev.Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("%s: is down (ip link set %s up)", name, name)
	}
	return dev, nil
}

// fits refuses frames that are longer than the device's MTU.
func fits(dev *net.Interface, t *Traffic) error {
	if need := t.Mix.largest() - 14; need > dev.MTU {
		return fmt.Errorf("%s: frames of %d bytes need an MTU of %d, it is %d", dev.Name, t.Mix.largest()+fcs, need, dev.MTU)
	}
	return nil
}

// openStation opens the queues of a device by the driver af_xdp or af_packet.
func openStation(name, how, mode string, queues, burst int) (_ *station, err error) {
	dev, err := device(name)
	if err != nil {
		return nil, err
	}
	if len(dev.HardwareAddr) != 6 {
		return nil, fmt.Errorf("%s: is no Ethernet device", name)
	}
	s := newStation(name, [6]byte(dev.HardwareAddr), how, burst)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	switch how {
	case AFXDP:
		if queues == 0 {
			queues = countQueues(name)
		}
		err = s.openAFXDP(dev.Index, mode, queues)
	case AFPacket:
		if queues > 1 {
			return nil, errors.New("af_packet: the kernel chooses the queue, --queues must be 1 or 0")
		}
		err = s.openAFPacket()
	default:
		err = fmt.Errorf("driver %q: must be af_xdp, af_packet, mem or xdp", how)
	}
	return s, err
}

// countQueues is the number of receive queues of a device, 1 if it does not say.
func countQueues(name string) int {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return 1
	}
	defer e.Close()
	c, err := e.GetChannels(name)
	if err != nil {
		return 1
	}
	return int(min(max(c.RxCount, c.CombinedCount, 1), 64))
}

func newStation(name string, mac [6]byte, driver string, burst int) *station {
	return &station{name: name, mac: mac, driver: driver, burst: burst, latency: newHistogram(), lag: newHistogram(),
		unsent: make([]packet.Desc, 0, burst), tx: make([]packet.Desc, 0, 2*packet.VectorSize)}
}

func (s *station) openAFXDP(index int, mode string, queues int) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	u, err := afxdp.NewUmem(afxdp.UmemOptions{Chunks: poolChunks * queues, ChunkSize: chunkSize, HugePages: true})
	if err != nil {
		return err
	}
	s.pool = u.Pool()
	s.closers = append(s.closers, u.Close)
	attach := afxdp.ModeNative
	if mode == afxdp.ModeGeneric {
		attach = afxdp.ModeGeneric
	}
	t, err := takeAll(s.name, index, attach, queues)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, t.close)
	for i := range queues {
		q, err := afxdp.Open(u, s.name, i, afxdp.Options{Mode: mode, Attached: t.mode})
		if err != nil {
			return err
		}
		s.closers = append(s.closers, q.Close)
		s.queues = append(s.queues, q)
		if err := t.register(i, q.SocketFD()); err != nil {
			return err
		}
	}
	return nil
}

func (s *station) openAFPacket() (err error) {
	if s.pool, err = packet.NewPool(make([]byte, poolChunks*chunkSize), chunkSize); err != nil {
		return err
	}
	q, err := afpacket.Open(s.name, s.pool, afpacket.Options{RingFrames: 8192, Promiscuous: true})
	if err != nil {
		return err
	}
	s.queues, s.closers = []driver.Queue{q}, append(s.closers, q.Close)
	return nil
}

// openMem makes two stations and the cable between them.
func openMem(burst int) (a, b *station, c *cable, err error) {
	var ends [2]*station
	c = &cable{}
	for i := range ends {
		s := newStation(fmt.Sprintf("mem%d", i), [6]byte{2, 0, 0, 0, 0, byte(i + 1)}, Mem, burst)
		if s.pool, err = packet.NewPool(make([]byte, poolChunks*chunkSize), chunkSize); err != nil {
			return nil, nil, nil, err
		}
		p, err := mem.NewPort(s.pool, mem.Options{Ring: 4096})
		if err != nil {
			return nil, nil, nil, err
		}
		s.queues, s.closers = []driver.Queue{p}, append(s.closers, p.Close)
		c.ends[i], ends[i] = p, s
	}
	return ends[0], ends[1], c, nil
}

// cable carries frames between two ports in memory; it loses none. It is the far end of both.
type cable struct {
	ends [2]*mem.Port
	held [2][]byte // taken from an end and refused by the other, which was full
	buf  [2][chunkSize]byte
}

// carry moves up to n frames each way and returns how many it moved.
func (c *cable) carry(n int) (moved int) {
	for i, from := range c.ends {
		to := c.ends[1-i]
		for range n {
			if c.held[i] == nil {
				size, ok := from.Take(c.buf[i][:])
				if !ok {
					break
				}
				c.held[i] = c.buf[i][:size]
			}
			if !to.Inject(c.held[i]) {
				break
			}
			c.held[i] = nil
			moved++
		}
	}
	return moved
}
