package pkttest

import (
	"encoding/binary"
	"fmt"
)

// Join is the IP packet that all its fragments, in any order, are of: what a host makes of them. It is the inverse of [Packet.Cut], plain and
// without mercy: it panics if they do not make one packet, each byte once.
func Join(pieces ...[]byte) []byte {
	var first, body []byte
	total, seen := -1, 0
	for _, ip := range pieces {
		v, err := look(ip)
		must(err)
		if len(pieces) == 1 && !v.fragment {
			return ip
		}
		if !v.fragment {
			panic("pkttest: a whole packet among fragments: " + String(ip))
		}
		end := v.offset + len(v.body)
		if v.offset == 0 {
			first = ip[:len(v.header)]
		}
		if !v.more {
			total = end
		}
		if end > len(body) {
			body = append(body, make([]byte, end-len(body))...)
		}
		seen += copy(body[v.offset:], v.body)
	}
	if first == nil || seen != total || len(body) != total {
		panic(fmt.Sprintf("pkttest: %d pieces hold %d bytes of %d", len(pieces), seen, total))
	}
	if first[0]>>4 == 4 {
		whole := append(append([]byte{}, first...), body...)
		binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
		binary.BigEndian.PutUint16(whole[6:], 0)
		return Seal(whole)
	}
	if len(first) != 48 || first[6] != 44 {
		panic("pkttest: only an IPv6 fragment header alone is taken out: " + String(pieces[0]))
	}
	whole := append(append([]byte{}, first[:40]...), body...)
	whole[6] = first[40]
	binary.BigEndian.PutUint16(whole[4:], uint16(len(body)))
	return whole
}
