package pcapng_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"weir/control/pcapng"
)

// capture is two packets on two interfaces, and what was missed.
func capture(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapng.NewWriter(&b, "weir test", []pcapng.Interface{{Name: "wan"}, {Name: "lan", Description: "eth2, af_xdp"}}, 64)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	frame := append([]byte{2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 3, 0x88, 0xb5}, "odd"...)
	for _, err := range []error{
		w.Packet(0, at, pcapng.Inbound, 99, frame, "verdict=dropped drop=no_backend"),
		w.Packet(1, at.Add(time.Microsecond), pcapng.Outbound, len(frame), frame, "verdict=forwarded, as it left"),
		w.Statistics(at.Add(time.Second), 2, 5, "5 not captured"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Packet(2, at, pcapng.Inbound, 1, nil, ""); err == nil {
		t.Error("a packet of an interface that there is not was written")
	}
	return b.Bytes()
}

// TestReader: gopacket reads what was written.
func TestReader(t *testing.T) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(capture(t)), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		data, ci, err := r.ReadPacketData()
		if err != nil || len(data) != 17 || ci.InterfaceIndex != i || ci.Timestamp.UnixNano() != 1700000000123456789+int64(i)*1000 || ci.Length != []int{99, 17}[i] {
			t.Errorf("packet %d: %v %+v, %v", i, data, ci, err)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("behind the last packet: %v", err)
	}
	if i, err := r.Interface(1); err != nil || i.Name != "lan" || i.SnapLength != 64 {
		t.Errorf("interface 1: %+v, %v", i, err)
	}
}

// TestTshark: Wireshark reads the comments, directions and interfaces.
func TestTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("no tshark")
	}
	file := filepath.Join(t.TempDir(), "a.pcapng")
	if err := os.WriteFile(file, capture(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tshark", "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction",
		"-e", "frame.len", "-e", "frame.cap_len", "-e", "frame.comment", "-e", "frame.time_epoch").CombinedOutput()
	want := "wan|0x00000001|99|17|verdict=dropped drop=no_backend|1700000000.123456789\nlan|0x00000002|17|17|verdict=forwarded, as it left|1700000000.123457789\n"
	if err != nil || !strings.HasSuffix(string(out), want) {
		t.Errorf("tshark says %v\n%s, want\n%s", err, out, want)
	}
}
