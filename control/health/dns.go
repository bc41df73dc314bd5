package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// askDNS asks a name server. It serves if it answers our question without an error (RFC 1035 section 4.1.1); whether there are such records
// is the zone's matter.
func askDNS(ctx context.Context, c *Check) error {
	conn, err := dial(ctx, "udp", c)
	if err != nil {
		return err
	}
	defer conn.Close()
	query := dnsQuery(uint16(rand.Uint32()), c.Query, c.QueryType)
	if _, err := conn.Write(query); err != nil {
		return plain("send", err)
	}
	answer := make([]byte, 4096)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return plain("receive", err)
		}
		if err := dnsAnswer(query, answer[:n]); err != errNotOurs {
			return err
		}
	}
}

// dnsQuery is a query for the records of a type that a name has in class IN, recursion desired. The name was checked: its labels have at most 63 bytes.
func dnsQuery(id uint16, name string, of uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // RD; one question
	if name = strings.TrimSuffix(name, "."); name != "" {
		for label := range strings.SplitSeq(name, ".") {
			b = append(b, byte(len(label)))
			b = append(b, label...)
		}
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, of)
	return binary.BigEndian.AppendUint16(b, 1)
}

var errNotOurs = errors.New("an answer to another question")

// dnsAnswer says what an answer to query says: nil if there is no error, errNotOurs if it is none to query. A server that cannot read the question
// need not repeat it (RFC 1035 section 4.1.1, RCODE 1), and its case may differ.
func dnsAnswer(query, b []byte) error {
	const header = 12
	if len(b) < header || b[0] != query[0] || b[1] != query[1] || b[2]&0x80 == 0 {
		return errNotOurs
	}
	rcode := b[3] & 0xf
	if question := query[header:]; rcode != 1 && (len(b) < len(query) || !strings.EqualFold(string(b[header:len(query)]), string(question))) {
		return errNotOurs
	}
	if rcode == 0 {
		return nil
	}
	names := [...]string{1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
	if int(rcode) < len(names) {
		return fmt.Errorf("dns: %s", names[rcode])
	}
	return fmt.Errorf("dns: error %d", rcode)
}
