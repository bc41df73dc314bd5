package pcapfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/gopacket"
	"github.com/google/gopacket/pcapgo"
)

// Types of pcapng blocks (draft-ietf-opsawg-pcapng section 4).
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete, but written for years
	blockEnhanced  = 6

	maxBlock = 16 << 20 // bytes; the longest that Wireshark takes
)

// openNG reads the section header and the first interface. A limit of pcapgo's: times of an interface whose unit is a power of two rather
// than of ten (if_tsresol with its upper bit set) are off within each second by up to 7 %.
func openNG(br *bufio.Reader) (s source, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("the capture is corrupt (%v)", p)
		}
	}()
	r, err := pcapgo.NewNgReader(&blocks{r: br}, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true, SkipUnknownVersion: true})
	switch {
	case err == io.EOF:
		return empty{}, nil // a section without an interface, and so without packets
	case err == io.ErrUnexpectedEOF:
		return nil, errors.New("the file ends within its header (truncated capture)")
	case err != nil:
		return nil, err
	}
	return r, nil
}

// empty is a capture without packets.
type empty struct{}

func (empty) ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error) {
	return nil, gopacket.CaptureInfo{}, io.EOF
}

// blocks passes a pcapng file on, block by block, and checks what pcapgo does not: that link types, which it cuts to 8 bits, are
// Ethernet; that lengths are sane before memory is taken for them; and whether the file ends between blocks (io.EOF) or within
// one (io.ErrUnexpectedEOF), which pcapgo cannot tell apart.
type blocks struct {
	r     *bufio.Reader
	order binary.ByteOrder // of the section
	left  int              // bytes of the current block that are yet to be passed on
	err   error
}

func (b *blocks) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left == 0 {
		if b.err = b.next(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // b.left was not zero
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// next looks at the head of the block that follows.
func (b *blocks) next() error {
	head, err := b.r.Peek(12) // the shortest block
	if len(head) == 0 {
		return err
	}
	if err != nil {
		return cut(err)
	}
	if binary.BigEndian.Uint32(head) == magicNG {
		b.order = binary.LittleEndian
		if binary.BigEndian.Uint32(head[8:]) == 0x1a2b3c4d {
			b.order = binary.BigEndian
		}
	}
	length := b.order.Uint32(head[4:])
	if length < 12 || length%4 != 0 || length > maxBlock {
		return fmt.Errorf("the capture is corrupt (a pcapng block of %d bytes)", length)
	}
	b.left = int(length)
	switch b.order.Uint32(head) {
	case blockInterface:
		if head, err = b.r.Peek(20); err != nil || length < 20 {
			return cut(err)
		}
		// pcapgo takes memory for a packet by the snap length, which may be any number. Peek shows the buffer itself, so what is
		// written here is what is passed on. Zero means no limit.
		if snap := b.order.Uint32(head[12:]); snap == 0 || snap > maxCapture {
			b.order.PutUint32(head[12:], maxCapture)
		}
		return checkLink(uint32(b.order.Uint16(head[8:])))
	case blockEnhanced, blockPacket:
		if head, err = b.r.Peek(28); err != nil || length < 32 {
			return cut(err)
		}
		return checkCapture(b.order.Uint32(head[20:]), length-32)
	}
	return nil
}

// cut is the error of a block that is shorter than its type demands: the file's end, or its own length.
func cut(err error) error {
	switch err {
	case nil:
		return errors.New("the capture is corrupt (a pcapng block shorter than its fields)")
	case io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func checkCapture(length, room uint32) error {
	if length > room || length > maxCapture {
		return fmt.Errorf("the capture is corrupt (a packet of %d bytes in a block with room for %d)", length, room)
	}
	return nil
}
