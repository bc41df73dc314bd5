package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A record is what client and server send each other, over TCP and UDP alike:
//
//	| magic 4 | what 1 | server 1 | 0 2 | length 4 | incarnation 8 | conn 8 | seq 8 | length bytes |
//
// in network order. The bytes follow from conn and seq, so that whoever receives them knows each.
const (
	headerLen = 36
	magic     = 0x77656972 // "weir"
	maxBody   = 1 << 20
)

// What a record asks for, or says.
const (
	whatEcho   = 1 // send this back, with your name
	whatGet    = 2 // the body has the length that is wanted; send as much, and close
	whatAnswer = 3
	whatBroken = 4 // the server saw something that cannot be: a gap, or another connection's records
)

type record struct {
	what        byte
	server      byte   // number of the server that answers, from 1
	incarnation uint64 // of the server's process
	conn        uint64 // of the client's connection
	seq         uint64
	body        []byte
}

var errRecord = errors.New("not a record")

// append writes r behind b.
func (r *record) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, r.what, r.server, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.body)))
	b = binary.BigEndian.AppendUint64(b, r.incarnation)
	b = binary.BigEndian.AppendUint64(b, r.conn)
	b = binary.BigEndian.AppendUint64(b, r.seq)
	return append(b, r.body...)
}

// header reads all but the body, of which it returns the length.
func (r *record) header(b []byte) (length int, err error) {
	if len(b) < headerLen || binary.BigEndian.Uint32(b) != magic {
		return 0, errRecord
	}
	r.what, r.server = b[4], b[5]
	n := binary.BigEndian.Uint32(b[8:])
	r.incarnation, r.conn, r.seq = binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:]), binary.BigEndian.Uint64(b[28:])
	if n > maxBody {
		return 0, fmt.Errorf("%w: a body of %d bytes", errRecord, n)
	}
	return int(n), nil
}

// parse reads a datagram.
func (r *record) parse(b []byte) error {
	n, err := r.header(b)
	if err != nil {
		return err
	}
	if len(b) != headerLen+n {
		return fmt.Errorf("%w: %d bytes, the header says %d", errRecord, len(b), headerLen+n)
	}
	r.body = b[headerLen:]
	return nil
}

// read reads a record from a stream. The body is valid until the next read with the same buffer.
func (r *record) read(from io.Reader, buf *[]byte) error {
	var h [headerLen]byte
	if _, err := io.ReadFull(from, h[:]); err != nil {
		return err
	}
	n, err := r.header(h[:])
	if err != nil {
		return err
	}
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	r.body = (*buf)[:n]
	if _, err := io.ReadFull(from, r.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// bodyOf are the bytes of a record, appended to b.
func bodyOf(b []byte, conn, seq uint64, n int) []byte {
	x := conn*0x9e3779b97f4a7c15 ^ (seq+1)*0xbf58476d1ce4e5b9 | 1
	for n > 0 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		var w [8]byte
		binary.BigEndian.PutUint64(w[:], x)
		k := min(n, 8)
		b = append(b, w[:k]...)
		n -= k
	}
	return b
}
