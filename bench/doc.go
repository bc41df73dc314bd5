// Package bench makes traffic and measures what becomes of it: `weir pktgen`, and what the suite in bench/suite is built on.
//
// A run has a sending port and a receiving one, which may be the same, or the one of them in another process. A port is an
// endpoint: a thread that drives the queues of a driver ([station]), or an XDP program that the kernel runs by itself ([source], [sink]).
//
//	Traffic -> crafter -> endpoint -> wire ... device under test ... wire -> endpoint -> counters, latency
//
// Every frame bears a stamp in its last 18 bytes: a number and the time it was due. So a receiver needs to know nothing of what happens
// to a frame on the way; translation and encapsulation leave its end alone. TCP segments without room for it bear the time as
// their sequence number, which the other side acknowledges.
//
// Its numbers mean something as ratios taken in one run on one machine.
package bench
