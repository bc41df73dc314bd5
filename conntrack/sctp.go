package conntrack

// The SCTP state machine of kernel IPVS (net/netfilter/ipvs/ip_vs_proto_sctp.c, sctp_states). It goes by the type of a packet's first
// chunk and believes it, as that of TCP believes flags. The states are those of the server's end (RFC 9260 section 4), with the closed one
// told apart by what was seen of the handshake:
//
//	         client opens                            server opens
//	NONE --- INIT -----------> INIT1           NONE --- INIT -----------> C-WAIT
//	     <-- INIT ACK -------- C-SENT               <-- INIT ACK -------- COOKIE
//	     --- COOKIE ECHO ----> C-REPLIED            --- COOKIE ECHO ----> C-ECHOED
//	     <-- COOKIE ACK ------ ESTABLISHED          <-- COOKIE ACK ------ ESTABLISHED
//
// INIT1 is short, for a client whose INIT was dropped; a second INIT makes it INIT. REJECTED, as short, is what an ABORT makes of an
// association before the other side has answered.

// Chunk types that move a state (RFC 9260 section 3.2). In an event byte the lower four bits are the type of the first chunk, chunkData in
// place of all that are not listed, and chunkAbortBehind is set if an ABORT stands behind a COOKIE ECHO or COOKIE ACK.
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
	chunkNone             = 15 // the packet ends before a whole chunk header: nothing happens
	numChunks             = 16

	chunkAbortBehind = 16
)

// sctpMove leads from some states to another.
type sctpMove struct {
	to   State
	from []State
}

// Short names as in the kernel, but that TCP has some of them already.
const (
	cNO, cI1, cIN, cCS, cCR, cCW, cCO = SCTPNone, SCTPInit1, SCTPInit, SCTPCookieSent, SCTPCookieReplied, SCTPCookieWait, SCTPCookie
	cCE, cES, cSS, cSR, cSA, cRJ, cCL = SCTPCookieEchoed, SCTPEstablished, SCTPShutdownSent, SCTPShutdownReceived, SCTPShutdownAckSent, SCTPRejected, SCTPClosed
)

// sctpMoves has what changes a state; a state from which no move leads away stays. The types of SACK (3), HEARTBEAT (4, 5), ECNE and CWR (12, 13) move
// as DATA does.
var sctpMoves = [numDirections][numChunks][]sctpMove{
	input: {
		chunkData:             {{cES, []State{cNO}}},
		chunkInit:             {{cI1, []State{cNO}}, {cIN, []State{cI1, cRJ, cCL}}},
		chunkInitAck:          {{cCW, []State{cNO, cI1, cIN}}, {cCO, []State{cCW}}},
		chunkCookieEcho:       {{cCR, []State{cNO, cCS}}, {cIN, []State{cI1}}},
		chunkCookieAck:        {{cES, []State{cNO, cCE}}},
		chunkShutdown:         {{cSR, []State{cNO, cES}}},
		chunkShutdownAck:      {{cCL, []State{cNO, cSS, cSA}}, {cIN, []State{cI1}}},
		chunkShutdownComplete: {{cCL, []State{cNO, cI1, cIN, cSA}}},
		chunkError:            {{cCL, []State{cNO, cCE}}},
		chunkAbort:            {{cCL, []State{cNO, cI1, cIN, cCS, cCR, cCO, cCE, cES, cSS, cSR, cSA, cRJ}}, {cRJ, []State{cCW}}},
	},
	output: {
		chunkData:             {{cES, []State{cNO}}},
		chunkInit:             {{cCW, []State{cNO, cI1, cIN, cCS, cCR, cCO, cCE, cSS, cSR, cSA, cRJ, cCL}}},
		chunkInitAck:          {{cCS, []State{cNO, cI1, cIN}}},
		chunkCookieEcho:       {{cCE, []State{cNO, cI1, cIN, cCS, cCR, cCW, cCO}}},
		chunkCookieAck:        {{cES, []State{cNO, cI1, cIN, cCS, cCR, cCW, cCO, cCE}}},
		chunkShutdown:         {{cSS, []State{cNO, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES}}},
		chunkShutdownAck:      {{cSA, []State{cNO, cI1, cIN, cCS, cCR, cSS, cSR}}},
		chunkShutdownComplete: {{cCL, []State{cNO}}},
		chunkError:            {{cCL, []State{cNO, cI1, cIN, cCS, cCR}}},
		chunkAbort:            {{cCL, []State{cNO, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ}}, {cRJ, []State{cI1}}},
	},
	inputOnly: {
		chunkData:             {{cES, []State{cNO, cCW}}},
		chunkInit:             {{cI1, []State{cNO}}, {cIN, []State{cI1, cCS, cCR, cCW, cRJ, cCL}}},
		chunkInitAck:          {{cCE, []State{cNO, cI1, cIN, cCS, cCR, cCW}}},
		chunkCookieEcho:       {{cES, []State{cNO, cI1, cIN, cCS, cCR, cCW}}},
		chunkCookieAck:        {{cES, []State{cNO, cCS, cCR, cCO, cCE}}},
		chunkShutdown:         {{cSR, []State{cNO, cES}}},
		chunkShutdownAck:      {{cCL, []State{cNO, cES, cSS, cSA}}, {cIN, []State{cI1}}},
		chunkShutdownComplete: {{cCL, []State{cNO, cI1, cIN, cCS, cCR, cSR, cSA}}},
		chunkError:            {{cCL, []State{cNO}}},
		chunkAbort:            {{cCL, []State{cNO, cI1, cIN, cCS, cCR, cCO, cCE, cES, cSS, cSR, cSA, cRJ}}, {cRJ, []State{cCW}}},
	},
}

// sctpStep is the state after a packet with the event byte e.
func sctpStep(d direction, e uint8, s State) State {
	chunk := e & 15
	switch {
	case e&chunkAbortBehind != 0:
		chunk = chunkAbort
	case chunk == 3, chunk == 4, chunk == 5, chunk == 12, chunk == 13:
		chunk = chunkData
	}
	for _, m := range sctpMoves[d][chunk] {
		for _, from := range m.from {
			if from == s {
				return m.to
			}
		}
	}
	return s
}
