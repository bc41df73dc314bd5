package main_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPrometheus has a real Prometheus scrape a daemon under traffic, load docs/alerts.yml, and answer every question of docs/grafana.json.
func TestPrometheus(t *testing.T) {
	needs(t, "prometheus", "curl")
	b := newBed(t, options{servers: 2})
	b.echoes(8000)
	d := b.start(b.config("admin: {http: \"127.0.0.1:9180\"}", "services:", b.service(vip4, "name: web, port: 80, protocol: tcp, scheduler: rr, check: {type: tcp, interval: 1s}", 8000)))
	rules, err := filepath.Abs("../../docs/alerts.yml")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "prometheus.yml"), []byte(fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: weir, static_configs: [{targets: ["127.0.0.1:9180"]}]}
`, rules)), 0o644))
	background(t, b.lb, "prometheus", "--config.file="+b.dir+"/prometheus.yml", "--storage.tsdb.path="+b.dir+"/tsdb", "--web.listen-address=127.0.0.1:9090", "--log.level=warn")
	// ask is what Prometheus answers at a path of its API.
	ask := func(path string, into any) bool {
		status, body := d.asks("http://127.0.0.1:9090/api/v1/" + path)
		return status == "200" && json.Unmarshal([]byte(body), into) == nil
	}
	type answer struct {
		Status string
		Data   struct{ Result []json.RawMessage }
		Error  string
	}
	query := func(expr string) (a answer) {
		ask("query?query="+url.QueryEscape(expr), &a)
		return a
	}
	works(t, b.client, hostPort(vip4, 80), 4)
	eventually(t, time.Minute, "Prometheus has scraped three times", func() bool {
		return len(query(`count_over_time(up{job="weir"}[1m]) >= 3 and up{job="weir"} == 1`).Data.Result) == 1
	})

	var groups struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, time.Minute, "Prometheus has evaluated every rule", func() bool {
		if !ask("rules", &groups) || len(groups.Data.Groups) == 0 {
			return false
		}
		for _, g := range groups.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					return false
				}
			}
		}
		return true
	})
	for _, g := range groups.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("alert %s: %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}

	text, err := os.ReadFile("../../docs/grafana.json")
	must(t, err)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(text, &board))
	asked, full := 0, 0
	quiet := regexp.MustCompile(`weir_(vxlan|segment|overlay|vtep|fdb|peer)`) // of an overlay, which this daemon has none of
	for _, p := range board.Panels {
		for _, x := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$service", ".*").Replace(x.Expr)
			a := query(expr)
			asked++
			if a.Status != "success" {
				t.Errorf("%s: %s: %s", p.Title, expr, a.Error)
			}
			if len(a.Data.Result) > 0 {
				full++
			} else if !quiet.MatchString(expr) && !strings.HasSuffix(expr, "== 0") && !strings.HasSuffix(expr, "> 0") {
				t.Errorf("%s shows nothing: %s", p.Title, expr)
			}
		}
	}
	if asked < 20 || full < asked/2 {
		t.Errorf("%d of %d questions have an answer", full, asked)
	}
	t.Logf("%d of %d questions of the dashboard have an answer, %d groups of alerts", full, asked, len(groups.Data.Groups))
}
