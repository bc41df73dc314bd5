package chaos

import (
	"bytes"
	"io"
	"testing"
)

func TestARecordComesBackAsItWas(t *testing.T) {
	want := record{what: whatEcho, server: 3, incarnation: 1 << 60, conn: 7, seq: 9, body: bodyOf(nil, 7, 9, 1001)}
	b := want.append(nil)
	var got record
	if err := got.parse(b); err != nil || got.what != want.what || got.server != want.server || got.incarnation != want.incarnation ||
		got.conn != want.conn || got.seq != want.seq || !bytes.Equal(got.body, want.body) {
		t.Fatalf("parsed %+v, %v", got, err)
	}
	var buf []byte
	got = record{}
	if err := got.read(bytes.NewReader(b), &buf); err != nil || got.seq != 9 || !bytes.Equal(got.body, want.body) {
		t.Fatalf("read %+v, %v", got, err)
	}
	if err := got.read(bytes.NewReader(b[:len(b)-1]), &buf); err != io.ErrUnexpectedEOF {
		t.Errorf("a record that is cut off: %v", err)
	}
	if bytes.Equal(bodyOf(nil, 7, 9, 64), bodyOf(nil, 7, 10, 64)) || bytes.Equal(bodyOf(nil, 7, 9, 64), bodyOf(nil, 8, 9, 64)) {
		t.Error("two records have the same bytes")
	}
}

func FuzzRecord(f *testing.F) {
	r := record{what: whatGet, conn: 1, seq: 2, body: []byte("abc")}
	f.Add(r.append(nil))
	f.Add([]byte("weir"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if r.parse(b) != nil {
			return
		}
		again := r.append(nil)
		copy(b[6:8], []byte{0, 0}) // nobody reads these
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
