// Package chaos runs real clients through a real `weir run` while everything around it goes wrong, and proves for each connection that what it
// saw was allowed.
//
//	bed       namespaces: client -- switch -- balancer -- switch -- servers, which are processes of their own
//	stream    a TCP connection of numbered records, each of which comes back with the name of the server that it reached
//	short     a TCP connection for one request, and those of a persistent client
//	flow      numbered datagrams over UDP, some larger than the links
//	event     what is done to the balancer, its links, its servers: two lanes of a schedule that a seed decides
//	rule      which events allow what: reset, closed, refused, unreachable, lost, moved. Nothing else is ever allowed
//	quiet     a moment without traffic: frames and counters must add up, to the last one
//
// What no rule allows is a violation, told with the connection's history and the events beside it. docs/chaos.md has the rules as a table.
package chaos
