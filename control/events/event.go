// Package events keeps the latest events of a daemon: what it logs at level info and above, one event a line.
//
// A [Log] is a bounded ring. [Log.Handler] puts it beside a handler of log/slog, so what stands in the log and what people are shown are the
// same lines, whatever level the log has:
//
//	slog.Logger -> tee -> the log (journal, standard error)
//	                \-> ring of the latest -> `weir events`, the dashboard
//
// The oldest event makes way for a new one. Nothing here runs on a worker.
package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// KindKey is the attribute of a line that says what kind of event it is; General is the kind of lines without one.
const (
	KindKey = "kind"
	General = "daemon"
)

// Event is one line of the log.
type Event struct {
	Seq     uint64    `json:"seq"` // the first is 1, each one more than the one before
	Time    time.Time `json:"time"`
	Level   string    `json:"level"` // info, warn or error
	Kind    string    `json:"kind"`
	Message string    `json:"message"`
	Fields  Fields    `json:"fields"`
}

// Field is one attribute of a line, as text.
type Field struct{ Key, Value string }

// Fields are the attributes of a line in its order; those of a group are named group.key. As JSON they are an object.
type Fields []Field

// Get is the value of key, empty if there is none.
func (f Fields) Get(key string) string {
	for _, x := range f {
		if x.Key == key {
			return x.Value
		}
	}
	return ""
}

// MarshalJSON writes an object whose members stand in the line's order.
func (f Fields) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, x := range f {
		if i > 0 {
			b = append(b, ',')
		}
		for j, s := range []string{x.Key, x.Value} {
			if j > 0 {
				b = append(b, ':')
			}
			text, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			b = append(b, text...)
		}
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Fields) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("an event's fields: %v, want an object: %w", t, err)
	}
	*f = Fields{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("an event's field %v: %w", key, err)
		}
		*f = append(*f, Field{key.(string), value}) // a member's name is a string
	}
	return nil
}
