package packet

// faultNames are the names of the faults in metrics and messages.
var faultNames = [FaultCount]string{
	FaultNone:       "none",
	FaultShort:      "short",
	FaultVersion:    "version",
	FaultHeaderLen:  "header_len",
	FaultLength:     "length",
	FaultIPChecksum: "ip_checksum",
	FaultTCPOffset:  "tcp_offset",
	FaultExtension:  "extension",
	FaultFragment:   "bad_fragment",
	FaultICMP:       "icmp_short",
}

// String is the fault's metric name.
func (f Fault) String() string {
	if f < FaultCount {
		return faultNames[f]
	}
	return "unknown"
}

// or is f, or g if there is no f: of several faults the first counts.
func (f Fault) or(g Fault) Fault {
	if f != FaultNone {
		return f
	}
	return g
}
