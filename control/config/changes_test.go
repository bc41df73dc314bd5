package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const changesHead = "version: 1\nports: [{name: wan, interface: eth1}]\n"

func TestChanges(t *testing.T) {
	web := "services:\n  - {name: web, vip: 198.18.9.9, port: 80, check: {type: http, interval: 5s}, backends: [{address: 198.18.1.10, port: 8000, weight: 3}, {address: 198.18.1.11}, {address: 198.18.1.12}]}\n"
	two := strings.Replace(web, "vip: 198.18.9.9", "vips: [198.18.9.9, 198.18.9.10]", 1)
	for _, x := range []struct {
		name, old, next string
		want            []string
	}{
		{"nothing, written otherwise", web, strings.Replace(web, "weight: 3", "weight: 3, state: ready", 1) + "# a comment\n", nil},
		{"a weight", web, strings.Replace(web, "weight: 3", "weight: 5", 1), []string{"~ tcp 198.18.9.9:80 198.18.1.10:8000 weight: 3 -> 5"}},
		{"a check of all", web, strings.Replace(web, "5s", "1m", 1), []string{
			"~ tcp 198.18.9.9:80 check.interval: 5s -> 1m", "~ tcp 198.18.9.9:80 198.18.1.10:8000 check.interval: 5s -> 1m",
			"~ tcp 198.18.9.9:80 198.18.1.11:80 check.interval: 5s -> 1m", "~ tcp 198.18.9.9:80 198.18.1.12:80 check.interval: 5s -> 1m"}},
		{"a backend more", web, strings.Replace(web, "{address: 198.18.1.11}", "{address: 198.18.1.11}, {address: 198.18.1.13, weight: 7}", 1),
			[]string{"+ tcp 198.18.9.9:80 198.18.1.13:80: weight 7"}},
		{"a backend's port is its identity", web, strings.Replace(web, "8000", "8001", 1),
			[]string{"- tcp 198.18.9.9:80 198.18.1.10:8000", "+ tcp 198.18.9.9:80 198.18.1.10:8001: weight 3"}},
		{"another order", web, strings.Replace(web, "{address: 198.18.1.11}, {address: 198.18.1.12}", "{address: 198.18.1.12}, {address: 198.18.1.11}", 1),
			[]string{"~ tcp 198.18.9.9:80 backends: 198.18.1.10:8000, 198.18.1.11:80, 198.18.1.12:80 -> 198.18.1.10:8000, 198.18.1.12:80, 198.18.1.11:80"}},
		{"a second VIP is a service", web, two, []string{"+ tcp 198.18.9.10:80: 3 backends"}},
		{"and goes", two, web, []string{"- tcp 198.18.9.10:80"}},
		{"a change for both", two, strings.Replace(two, "weight: 3", "weight: 4", 1), []string{
			"~ tcp 198.18.9.9:80 198.18.1.10:8000 weight: 3 -> 4", "~ tcp 198.18.9.10:80 198.18.1.10:8000 weight: 3 -> 4"}},
		{"a timeout of all is told of once", web, web + "conntrack: {timeouts: {udp: 10s}}\n", []string{"~ conntrack.timeouts.udp: 5m -> 10s"}},
		{"a timeout of one", web, strings.Replace(web, "port: 80", "port: 80, timeouts: {udp: 10s}", 1), []string{"~ tcp 198.18.9.9:80 conntrack.timeouts.udp: 5m -> 10s"}},
		{"a secret", web, strings.Replace(web, "port: 80", "port: 80, scheduler: sh, hash_seed: geheim", 1), []string{
			"~ tcp 198.18.9.9:80 scheduler: wlc -> sh", "~ tcp 198.18.9.9:80 hash_seed: none -> (not shown)"}},
		{"the rest", "vxlan: {segments: [{vni: 1, vtep: 192.0.2.1}, {vni: 2, vtep: 192.0.2.1}]}\nroutes: [{to: 203.0.113.0/24, via: 198.18.0.2}]\n",
			"vxlan: {segments: [{vni: 2, vtep: 192.0.2.1, ttl: inherit, peers: [192.0.2.2], gateway: {address: 172.16.1.1/24, mac: \"02:00:00:00:00:01\"}}]}\nlimits: {answers: 5/s}\nbind_vips: false\n",
			[]string{"- routes[203.0.113.0/24]", "~ limits.answers: 1000/s -> 5/s", "- vxlan.segments[1]", "+ vxlan.segments[2].peers[192.0.2.2]", "~ vxlan.segments[2].ttl: 64 -> inherit",
				"~ vxlan.segments[2].gateway: none -> given", "~ bind_vips: true -> false"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			var got []string
			for _, c := range Changes(parsed(t, changesHead+x.old), parsed(t, changesHead+x.next)) {
				got = append(got, c.String())
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(x.want, "\n"))
			}
		})
	}
}

// TestChangesAgreeWithCompare: one finds a difference where the other does, for every key there is.
func TestChangesAgreeWithCompare(t *testing.T) {
	full, diags := Load("testdata/valid/full.yaml")
	if HasErrors(diags) {
		t.Fatal(Errors(diags))
	}
	if got := Changes(full, full); len(got) != 0 {
		t.Errorf("from itself: %v", got)
	}
	if got := Changes(parsed(t, changesHead), full); len(got) < 20 {
		t.Errorf("from next to nothing: %v", got)
	}
}

// TestChangesNameKeys: whatever a change can be called is a key of the file.
func TestChangesNameKeys(t *testing.T) {
	keys := Keys()
	var walk func(path string, t reflect.Type)
	number := regexp.MustCompile(`\[[^\]]*\]`)
	walk = func(path string, typ reflect.Type) {
		switch {
		case texts[typ] != nil || typ.PkgPath() == "net/netip":
			return
		case typ.Kind() == reflect.Pointer:
			walk(path, typ.Elem())
		case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct && typ.Elem().PkgPath() == reflect.TypeFor[Config]().PkgPath():
			walk(path+"[]", typ.Elem())
		case typ.Kind() == reflect.Struct:
			for i := range typ.NumField() {
				key, ok := keyOf(typ.Field(i))
				if !ok {
					continue
				}
				p := number.ReplaceAllString(strings.TrimPrefix(path+"."+key, "."), "[]")
				documented := strings.Replace(p, "services[].backends[].check.", "services[].check.", 1)
				documented = strings.Replace(documented, "services[].conntrack.timeouts.", "conntrack.timeouts.", 1)
				if !slices.Contains(keys, documented) && p != "services[].conntrack.max_connections" {
					t.Errorf("%s (%s.%s) is no key", p, typ.Name(), typ.Field(i).Name)
				}
				walk(p, typ.Field(i).Type)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}
