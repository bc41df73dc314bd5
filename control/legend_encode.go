package control

import (
	"encoding/json"
	"strconv"

	"weir/dataplane/steer"
)

// encode is l as json.Marshal writes it. With a hundred thousand backends that takes as long as the rest of a reload, and whenever one comes or goes all
// are written. What few backends have is left to it.
func (l *legend) encode() ([]byte, error) {
	head, err := json.Marshal(&legend{Version: l.Version, Table: l.Table, File: l.File})
	if err != nil || l.Backends == nil {
		return head, err
	}
	const none = "null}" // of the backends
	b := make([]byte, 0, len(head)+200*len(l.Backends))
	b = append(append(b, head[:len(head)-len(none)]...), '[')
	for i := range l.Backends {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = l.Backends[i].append(b); err != nil {
			return nil, err
		}
	}
	return append(b, "]}"...), nil
}

// append writes x behind b.
func (x *legendBackend) append(b []byte) ([]byte, error) {
	number := func(key string, n uint64) { b = strconv.AppendUint(append(b, key...), n, 10) }
	number(`{"id":`, uint64(x.ID))
	if x.Name != "" {
		name, err := json.Marshal(x.Name)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"name":`...), name...)
	}
	number(`,"protocol":`, uint64(x.Protocol))
	b = append(x.VIP.AppendTo(append(b, `,"vip":"`...)), '"')
	number(`,"vip_port":[`, uint64(x.VIPPort[0]))
	number(`,`, uint64(x.VIPPort[1]))
	b = append(b, ']')
	if x.VIPVNI != 0 {
		number(`,"vip_vni":`, uint64(x.VIPVNI))
	}
	b = append(x.Address.AppendTo(append(b, `,"address":"`...)), '"')
	number(`,"port":`, uint64(x.Port))
	if x.VNI != 0 {
		number(`,"vni":`, uint64(x.VNI))
	}
	if x.Removed {
		b = append(b, `,"removed":true`...)
	}
	for i, s := range x.Servers {
		b = append(b, []string{`,"servers":[`, `,`}[min(i, 1)]...)
		b = append(s.Addr.AppendTo(append(b, `{"Addr":"`...)), '"')
		number(`,"Protocol":`, uint64(s.Protocol))
		number(`,"Port":`, uint64(s.Port))
		b = append(b, '}')
	}
	if len(x.Servers) > 0 {
		b = append(b, ']')
	}
	if len(x.NATs)+len(x.Tunnels) > 0 {
		rest, err := json.Marshal(struct {
			NATs    []legendNAT    `json:"nats,omitempty"`
			Tunnels []steer.Tunnel `json:"tunnels,omitempty"`
		}{x.NATs, x.Tunnels})
		if err != nil {
			return nil, err
		}
		b = append(append(b, ','), rest[1:len(rest)-1]...)
	}
	return append(b, '}'), nil
}
