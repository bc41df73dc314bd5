package control

import (
	"weir/control/config"
	"weir/control/events"
)

// operation is one route as the description has it.
type operation struct {
	pattern string // as the mux has it
	summary string
	query   []parameter
	body    any    // an example of its type; nil: none
	answer  any    // likewise; nil: text
	example string // path and query that a bed with two backends answers with 200; empty: the test does not ask
	send    string // body of the example
	fails   []int  // statuses besides 200
}

type parameter struct{ name, kind, what string }

var filters = []parameter{
	{"service", "string", "only of this service: its name, VIP, or VIP:PORT"}, {"backend", "string", "only to this server: its name, address, or ADDRESS:PORT"},
	{"client", "string", "only of this client: ADDRESS, PREFIX, or ADDRESS:PORT"}, {"state", "string", "only in this state, such as ESTABLISHED"},
	{"limit", "integer", "at most so many, 0: all"},
}

var ofSegment = []parameter{{"vni", "integer", "of this segment alone"}}

// ofSight are what packets are seen and how many. Each may be given more than once, and then one of the values must fit.
var ofSight = []parameter{
	{"host", "string", "address or prefix of either end"}, {"port", "integer", "port of either end"}, {"proto", "string", "tcp, udp, sctp, icmp or icmp6"}, {"service", "string", "its name, VIP, or VIP:PORT"},
	{"drop", "string", "dropped for this reason"}, {"on", "string", "port of weir"}, {"stage", "string", "received, sent or dropped"},
	{"count", "integer", "packets, then it ends"}, {"rate", "integer", "packets a second at most"}, {"duration", "string", "then it ends, such as 10s"},
}

// operations are all routes. Who adds one describes it here.
var operations = []operation{
	{pattern: "GET /stats", summary: "All counters", answer: Stats{}, example: "/stats"},
	{pattern: "GET /list", summary: "Services and their backends", answer: []ServiceView{}, example: "/list"},
	{pattern: "GET /drops", summary: "Frames discarded, by reason", answer: map[string]uint64{}, example: "/drops"},
	{pattern: "GET /ports", summary: "Ports and the driver mode each one got", answer: []PortView{}, example: "/ports"},
	{pattern: "GET /workers", summary: "Workers and how busy they are", answer: []WorkerView{}, example: "/workers"},
	{pattern: "GET /status", summary: "The daemon: configuration, generation, last reload", answer: Status{}, example: "/status"},
	{pattern: "GET /frames", summary: "Where the frames of every worker's pool are", answer: []FramesView{}, example: "/frames"},
	{pattern: "GET /events", summary: "What the log has told, one event each", query: []parameter{{"after", "integer", "only those with a greater seq"}, {"kind", "string", "only of this kind"},
		{"level", "string", "info, warn or error: no less severe"}, {"limit", "integer", "at most so many, the latest, 0: all"}, {"wait", "string", "up to 1m for one to come, if there is none"}}, answer: []events.Event{}, fails: []int{400}},
	{pattern: "POST /capture", summary: "Streams a pcapng of packets as they came and as they left, with what was decided as their comments", query: append(ofSight[:len(ofSight):len(ofSight)], parameter{"snaplen", "integer", "bytes of each packet, 14 to 65535"}), fails: []int{400}},
	{pattern: "POST /trace", summary: "Streams what was decided of packets, one JSON object a line", query: ofSight, fails: []int{400}},
	{pattern: "POST /sight/end", summary: "Ends a capture or trace as if its time were over", query: []parameter{{"id", "integer", "the Weir-Sight header of its answer"}}, fails: []int{400, 404}},
	{pattern: "GET /conns", summary: "Connections", query: filters, answer: []ConnView{}, example: "/conns?service=web", fails: []int{400, 404}},
	{pattern: "DELETE /conns", summary: "Forgets connections; nobody is told", query: append(filters[:len(filters):len(filters)], parameter{"all", "boolean", "every connection is meant"}), answer: Changed{}, example: "/conns?client=198.18.0.77", fails: []int{400, 404}},
	{pattern: "POST /stats/zero", summary: "Shows the counters of a service, or of all, from zero on", query: []parameter{{"service", "string", "its name, VIP:PORT, or PROTOCOL-VIP:PORT"}}, answer: Changed{}, example: "/stats/zero?service=web", fails: []int{404, 409}},
	{pattern: "GET /explain", summary: "Which server a client's connection would get now, and why", query: []parameter{{"protocol", "string", "tcp, udp or sctp"}, {"client", "string", "ADDRESS:PORT"}, {"virtual", "string", "ADDRESS:PORT"}, {"vni", "integer", "segment that the client is in"}},
		answer: ExplainView{}, example: "/explain?protocol=tcp&client=198.18.0.2:7&virtual=198.18.9.9:80", fails: []int{400}},
	{pattern: "GET /rates", summary: "Rates of services and backends over an interval", query: []parameter{{"interval", "string", "10ms to 1m"}}, answer: Rates{}, example: "/rates?interval=10ms", fails: []int{400}},
	{pattern: "GET /vxlan", summary: "Segments with their peers, access ports and counters", query: ofSegment, answer: []SegmentView{}, example: "/vxlan", fails: []int{400, 404}},
	{pattern: "GET /fdb", summary: "Where the stations of segments are", query: append(ofSegment[:1:1], parameter{"mac", "string", "this station alone"}), answer: []StationView{}, example: "/fdb", fails: []int{400, 404}},
	{pattern: "GET /fdb/neighbors", summary: "Hosts whose MAC addresses the gateways of segments know, or ask for", query: ofSegment, answer: []NeighborView{}, example: "/fdb/neighbors", fails: []int{400, 404}},
	{pattern: "POST /fdb/add", summary: "Says where a station is, until it is removed or weir ends", body: StationRequest{}, answer: Changed{}, example: "/fdb/add", send: `{"vni": 5001, "mac": "02:00:00:00:bb:01", "port": "lan"}`, fails: []int{400, 404, 409, 413}},
	{pattern: "POST /fdb/del", summary: "Forgets a station that was learned, or added", body: StationRequest{}, answer: Changed{}, example: "/fdb/del", send: `{"vni": 5001, "mac": "02:00:00:00:bb:01"}`, fails: []int{400, 404, 409, 413}},
	{pattern: "POST /fdb/flush", summary: "Forgets what was learned", body: StationRequest{}, answer: Changed{}, example: "/fdb/flush", send: `{"vni": 5001}`, fails: []int{400, 404, 413}},
	{pattern: "POST /reload", summary: "Loads the configuration file anew", query: []parameter{{"keep", "boolean", "keep changes that are not in the file"}}, answer: Outcome{}, example: "/reload?keep=true", fails: []int{400, 422}},
	{pattern: "GET /livez", summary: "Whether workers and the control loop move"},
	{pattern: "GET /readyz", summary: "Whether traffic should be sent here"},
	{pattern: "GET /metrics", summary: "Metrics in the text format of Prometheus", example: "/metrics"},
	{pattern: "GET /openapi.json", summary: "This description", answer: map[string]any{}, example: "/openapi.json"},
	{pattern: "GET /services", summary: "Services and their backends", answer: []ServiceView{}, example: "/services"},
	{pattern: "GET /services/{service}", summary: "One service", answer: ServiceView{}, example: "/services/198.18.9.9:80", fails: []int{404, 409}},
	{pattern: "GET /services/{service}/backends", summary: "Its backends", answer: []BackendView{}, example: "/services/web/backends", fails: []int{404, 409}},
	{pattern: "GET /services/{service}/backends/{backend}", summary: "One backend", answer: BackendView{}, example: "/services/web/backends/198.18.1.10", fails: []int{404, 409}},
	{pattern: "POST /services/{service}/backends", summary: "Adds a backend, as the first in the scheduler's order", body: config.Object{}, answer: Outcome{}, example: "/services/web/backends", send: `{"address": "198.18.1.12", "port": 8000}`, fails: []int{400, 404, 409, 413, 422}},
	{pattern: "PATCH /services/{service}/backends/{backend}", summary: "Changes keys of a backend", body: config.Object{}, answer: Outcome{}, example: "/services/web/backends/198.18.1.12", send: `{"weight": 2}`, fails: []int{400, 404, 409, 413, 422}},
	{pattern: "PUT /services/{service}/backends/{backend}", summary: "Makes a backend be what the object says, and adds it if need be", body: config.Object{}, answer: Outcome{}, example: "/services/web/backends/198.18.1.12:8000", send: `{"weight": 3}`, fails: []int{400, 404, 409, 413, 422}},
	{pattern: "DELETE /services/{service}/backends/{backend}", summary: "Removes a backend", answer: Outcome{}, example: "/services/web/backends/198.18.1.12", fails: []int{404, 409, 422}},
	{pattern: "GET /config/diff", summary: "How what runs differs from the file as it is now", answer: ConfigDiff{}, example: "/config/diff", fails: []int{422}},
	{pattern: "GET /config/changes", summary: "Changes that are not in the file as it was loaded last", answer: []ConfigEdit{}, example: "/config/changes"},
}
