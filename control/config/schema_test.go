package config

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// compiledSchema is the schema as an independent validator takes it.
func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	b, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("weir.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("weir.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is YAML as an editor gives it to a validator.
func asJSON(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestSchemaTakesWhatTheDecoderTakes: every example, and the file that gives every key.
func TestSchemaTakesWhatTheDecoderTakes(t *testing.T) {
	s := compiledSchema(t)
	for _, pattern := range []string{"../../configs/*.yaml", "testdata/valid/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		if len(files) < 3 {
			t.Errorf("%d files match %s", len(files), pattern)
		}
		for _, file := range files {
			if err := s.Validate(asJSON(t, contents(t, file))); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// TestSchemaRefuses what the decoder refuses in a single value, and takes the same with the value put right.
func TestSchemaRefuses(t *testing.T) {
	s := compiledSchema(t)
	head := "version: 1\nports: [{name: wan, interface: eth1}]\n"
	service := head + "services: [{vip: 198.18.9.9, port: 80, PART, backends: [{address: 198.18.1.10}]}]\n"
	segment := head + "vxlan: {segments: [{vni: 5001, vtep: 192.0.2.1, PART}]}\n"
	for _, x := range []struct{ in, wrong, right string }{
		{"PART", "version: 1", head},
		{"PART", "ports: []\nversion: 2", head},
		{head + "PART", "servces: []", "services: []"},
		{head + "PART", "grace: 10", "grace: 10s"},
		{head + "PART", "bind_vips: maybe", "bind_vips: false"},
		{head + "PART", "limits: {answers: 1000}", "limits: {answers: 1000/s}"},
		{head + "PART", "engine: {workers: many}", "engine: {workers: auto}"},
		{head + "PART", "engine: {workers: 300}", `engine: {workers: {cpus: "2-5"}}`},
		{head + "PART", "engine: {wait: busily}", "engine: {wait: busy}"},
		{head + "PART", "conntrack: {max_connections: 1000}", "conntrack: {max_connections: 1024}"},
		{head + "PART", "conntrack: {timeouts: {udp: soon}}", "conntrack: {timeouts: {udp: 1m30s}}"},
		{head + "PART", "admin: {socket: 7}", "admin: {socket: /run/w.sock}"},
		{head + "PART", "routes: [{to: 203.0.113.0/24}]", "routes: [{to: 203.0.113.0/24, via: 198.18.0.2}]"},
		{head + "PART", "routes: [{to: 203.0.113.0, via: 198.18.0.2}]", "routes: null"},
		{head + "PART", "neighbors: [{address: 198.18.0.2, mac: x, port: wan}]", `neighbors: [{address: 198.18.0.2, mac: "02:00:00:00:00:0c", port: wan}]`},
		{service, "scheduler: wcl", "scheduler: wlc"},
		{service, "protocol: icmp", "protocol: udp"},
		{service, "flags: [sh-ports]", "flags: [sh-port]"},
		{service, "flags: sh-port", "flags: []"},
		{service, "mh_table: 4096", "mh_table: 4093"},
		{service, "persistence: 300s", "persistence: {timeout: 300s}"},
		{service, "persistence: {prefix: 33}", "persistence: {prefix: 32}"},
		{service, "masquerade: sometimes", "masquerade: {except: [172.16.0.0/12]}"},
		{service, "check: htp", "check: http"},
		{service, "check: {type: http, rise: 0}", "check: {type: http, rise: 1}"},
		{service, "check: {status: all}", "check: {status: 200-299}"},
		{service, "fullnat: {ports: 0-100-200}", "fullnat: {addresses: [198.18.1.1], ports: 40000-50000}"},
		{service, `name: "two words"`, "name: two-words"},
		{service, "on_down: ignore", "on_down: reset"},
		{segment, "ttl: 0", "ttl: inherit"},
		{segment, "mss_clamp: some", "mss_clamp: true"},
		{segment, "peers: [192.0.2]", "peers: [192.0.2.2, {address: 192.0.2.3, port: 8472}]"},
		{segment, "access: [{vlan: 5}]", "access: [{port: wan, vlan: 5}]"},
		{segment, "gateway: {address: 172.16.1.1}", `gateway: {address: 172.16.1.1/24, mac: "02:00:00:00:50:01", reaches: [5002, underlay]}`},
	} {
		wrong, right := strings.Replace(x.in, "PART", x.wrong, 1), strings.Replace(x.in, "PART", x.right, 1)
		if s.Validate(asJSON(t, []byte(wrong))) == nil {
			t.Errorf("passes: %s", x.wrong)
		}
		if err := s.Validate(asJSON(t, []byte(right))); err != nil {
			t.Errorf("refused: %s: %v", x.right, err)
		}
		if _, diags := Parse("f", []byte(wrong)); !HasErrors(diags) {
			t.Errorf("the decoder takes %s", x.wrong)
		}
	}
}

// TestSchemaHasEveryKey: no key of the decoder's is missing, none is made up, and each says what it means.
func TestSchemaHasEveryKey(t *testing.T) {
	b, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(b, &root); err != nil {
		t.Fatal(err)
	}
	found, defaults := map[string]bool{}, 0
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		if all, ok := s["anyOf"].([]any); ok {
			for _, x := range all {
				walk(path, x.(map[string]any))
			}
		}
		if items, ok := s["items"].(map[string]any); ok {
			walk(path+"[]", items)
		}
		properties, _ := s["properties"].(map[string]any)
		for key, x := range properties {
			x, p := x.(map[string]any), join(path, key)
			found[p] = true
			if x["description"] == nil && !strings.Contains(p, "timeouts.") {
				t.Errorf("%s does not say what it means", p)
			}
			if x["default"] != nil {
				defaults++
			}
			walk(p, x)
		}
	}
	walk("", root)
	// A backend's check and a service's timeouts are decoded by the tables of the service's check and of conntrack.
	keys := Keys()
	under := func(from, to string) {
		for _, key := range Keys() {
			if rest, ok := strings.CutPrefix(key, from+"."); ok {
				keys = append(keys, to+"."+rest)
			}
		}
	}
	under("services[].check", "services[].backends[].check")
	under("conntrack.timeouts", "services[].timeouts")
	under("conntrack.timeouts", "services[].conntrack.timeouts")
	for _, key := range keys {
		if !found[key] {
			t.Errorf("%s is not in the schema", key)
		}
		delete(found, key)
	}
	for key := range found {
		t.Errorf("the schema has %s, which is no key", key)
	}
	if defaults < 40 {
		t.Errorf("%d defaults", defaults)
	}
}

// TestDocumentedDefaults: a file that gives each key the default that the document and the schema name is one that gives none.
func TestDocumentedDefaults(t *testing.T) {
	docs := documentedKeys(string(contents(t, "../../docs/config.md")))
	lines := func(path string, but ...string) string {
		var all []string
		for key, d := range docs {
			if rest, ok := strings.CutPrefix(key, path+"."); ok && d.preset != nil && !strings.Contains(rest, ".") && !slices.Contains(but, rest) {
				text, _ := json.Marshal(d.preset)
				all = append(all, rest+": "+string(text))
			}
		}
		slices.Sort(all)
		if len(all) == 0 {
			t.Errorf("no defaults of %s", path)
		}
		return strings.Join(all, ", ")
	}
	plain := "version: 1\nports: [{name: wan, interface: eth1}]\nservices: [{vip: 198.18.9.9, port: 80, persistence: {}, check: {}, passive: {}, fullnat: {addresses: [198.18.1.1]}, forward: fullnat, backends: [{address: 198.18.1.10}]}]\n" +
		"vxlan: {segments: [{vni: 1, vtep: 192.0.2.1}]}\n"
	var full strings.Builder
	full.WriteString("version: 1\nports: [{name: wan, interface: eth1, " + lines("ports[]") + "}]\n")
	full.WriteString("services: [{vip: 198.18.9.9, port: 80, " + lines("services[]", "forward", "mh_table", "hash_seed") + ", persistence: {" + lines("services[].persistence") + "}, check: {" +
		lines("services[].check", "method", "path", "host", "status", "verify", "query", "query_type") + "}, passive: {" + lines("services[].passive") + "}, forward: fullnat, fullnat: {addresses: [198.18.1.1], " + lines("services[].fullnat") +
		"}, backends: [{address: 198.18.1.10, " + lines("services[].backends[]", "tunnel_port") + "}]}]\n")
	full.WriteString("vxlan: {" + lines("vxlan") + ", segments: [{vni: 1, vtep: 192.0.2.1, " + lines("vxlan.segments[]") + "}]}\n")
	full.WriteString("engine: {" + lines("engine") + "}\nconntrack: {" + lines("conntrack") + ", timeouts: {" + lines("conntrack.timeouts") + "}}\nlimits: {" + lines("limits") + "}\nadmin: {" + lines("admin") + "}\n")
	was, is := parsed(t, plain), parsed(t, full.String())
	if d := Compare(was, is); !d.Empty() {
		t.Errorf("%v: %v\n%s", d, Changes(was, is), full.String())
	}
}
