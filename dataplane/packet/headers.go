package packet

// Numbers of the headers that the data path knows (IANA).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8

	ProtoICMP   = 1
	ProtoIPIP   = 4 // IPv4 in IP
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoIPv6   = 41 // IPv6 in IP
	ProtoGRE    = 47
	ProtoESP    = 50
	ProtoAH     = 51
	ProtoICMPv6 = 58
	ProtoSCTP   = 132

	TCPFin = 0x01
	TCPSyn = 0x02
	TCPRst = 0x04
	TCPAck = 0x10
)

// Flags of an SCTP packet: the type of its first chunk (RFC 9260 section 3.2) under SCTPChunk, and SCTPAbortBehind. As in kernel IPVS, types
// that it knows nothing of count as SCTPData.
const (
	SCTPData             = 0
	SCTPInit             = 1
	SCTPInitAck          = 2
	SCTPAbort            = 6
	SCTPShutdown         = 7
	SCTPShutdownAck      = 8
	SCTPError            = 9
	SCTPCookieEcho       = 10
	SCTPCookieAck        = 11
	SCTPShutdownComplete = 14 // the highest type that is kept
	SCTPNoChunk          = 15 // the packet ends before a whole chunk header

	SCTPChunk       = 0x0f // mask of the type
	SCTPAbortBehind = 0x10 // an ABORT stands behind a COOKIE ECHO or COOKIE ACK, the chunks that may have one behind them
)

// Kind says what Parse found, as bits.
type Kind uint16

const (
	KindIPv4          Kind = 1 << iota // L3 is an IPv4 header
	KindIPv6                           // L3 is an IPv6 header
	KindTransport                      // L4 is a whole TCP, UDP, SCTP, ICMP or ICMPv6 header; ports, or type and code, are valid
	KindFirstFragment                  // the first of several fragments: L4 is valid, but the datagram goes on elsewhere
	KindLaterFragment                  // a fragment other than the first: L4 points at its payload, ports are not valid
	KindICMPError                      // an ICMP or ICMPv6 error (not an informational message); Quote says if it quotes a usable packet
	KindQuote                          // Quote is valid: the quoted packet's addresses, protocol and the first 8 bytes of its transport header
	KindOptions                        // IPv4 options or IPv6 extension headers stand before L4
	KindBroadcast                      // the destination MAC has its group bit set (multicast and broadcast)
	KindSourceRoute                    // IPv4 LSRR or SSRR, IPv6 routing header with segments left
	KindOuter                          // L3 is a header of our own that a tunnel begins with; never of Parse
)

// Headers is where the headers of a frame are and what in them the stages need again and again. Numbers are in host order; offsets
// index the frame's chunk. Written by Parse alone.
type Headers struct {
	// read for every packet
	Kind    Kind
	L3      uint16 // offset of the IPv4 or IPv6 header
	L4      uint16 // offset of the transport header, behind options and extension headers
	L3End   uint16 // offset behind the IP packet's last byte by its own length field; Ethernet padding lies behind it
	SrcPort uint16 // TCP, UDP, SCTP; for echo request and reply, the identifier in both
	DstPort uint16
	Proto   uint8 // of L4: the IPv4 protocol, or the last IPv6 next header
	Flags   uint8 // what moves a connection's state: of TCP byte 13 of the header, of SCTP what chunks there are (SCTPData and below)
	TTL     uint8 // TTL or hop limit as received

	// read for few
	ICMPType    uint8
	ICMPCode    uint8
	VLANs       uint8  // number of 802.1Q/802.1ad tags: 0, 1 or 2
	VLAN        uint16 // identifier of the outer tag, 0 when untagged or priority-tagged
	EtherType   uint16 // behind the tags
	QuoteL3     uint16 // offset of the IP header that an ICMP error quotes
	QuoteL4     uint16 // offset of its transport header, of which at least 8 bytes are there
	QuoteSrc    uint16 // ports of the quoted packet, as it was sent
	QuoteDst    uint16
	QuoteProto  uint8
	FragmentID  uint32 // of a fragment
	FragmentOff uint16 // of a fragment, in bytes
}

// Fault is why a frame cannot be understood. A frame with a fault must be dropped.
type Fault uint8

const (
	FaultNone       Fault = iota
	FaultShort            // a header or tag is cut off
	FaultVersion          // the IP version field contradicts the Ethernet type
	FaultHeaderLen        // an IPv4 header length below 5 words or beyond the packet
	FaultLength           // an IP, UDP, IPv4 option or extension header length contradicts the bytes that are there
	FaultIPChecksum       // the IPv4 header checksum is wrong
	FaultTCPOffset        // a TCP data offset below 5 words or beyond the packet
	FaultExtension        // more extension headers than maxExtensions, or one out of place
	FaultFragment         // a fragment that may not be: tiny (RFC 3128), beyond 65535, not a multiple of 8, empty
	FaultICMP             // an ICMP or ICMPv6 message shorter than its header
	FaultCount
)
