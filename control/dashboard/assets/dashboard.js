// The dashboard of weir: what comes over the stream, and where it goes on the page.

import { Chart } from "./chart.js";
import { $, el, keyed, mark, say } from "./dom.js";
import { parts, short, span, whole } from "./format.js";
import { forget, news } from "./log.js";
import { Stream } from "./stream.js";
import * as tables from "./tables.js";

const keep = 300; // points
let points = [], means = {}, stream;

// What the viewer looks for stands in the page's address, so that it can be kept and passed on.
const asked = new URLSearchParams(location.search);
const q = { q: asked.get("q") ?? "", only: asked.get("only") ?? "all", sort: asked.get("sort") ?? "order", segments: asked.get("segments") ?? "", offset: Number(asked.get("offset")) || 0, limit: 25 };
for (const id of ["q", "only", "sort"]) {
  $(id).value = q[id];
  if ($(id).value !== q[id]) $(id).value = q[id] = { q: "", only: "all", sort: "order" }[id];
}
$("segments-q").value = q.segments;

function query() {
  const p = new URLSearchParams();
  for (const [k, v] of Object.entries(q)) if (v && v !== "all" && v !== "order" && k !== "limit") p.set(k, v);
  return p;
}

let typing;
function ask(change, pause = 0) {
  Object.assign(q, change);
  clearTimeout(typing);
  typing = setTimeout(() => {
    const p = String(query());
    history.replaceState(null, "", p ? "?" + p : location.pathname);
    stream.open();
  }, pause);
}
$("query").addEventListener("submit", e => e.preventDefault());
$("q").addEventListener("input", e => ask({ q: e.target.value.trim(), offset: 0 }, 250));
$("only").addEventListener("change", e => ask({ only: e.target.value, offset: 0 }));
$("sort").addEventListener("change", e => ask({ sort: e.target.value, offset: 0 }));
$("segments-q").addEventListener("input", e => ask({ segments: e.target.value.trim() }, 250));
$("previous").addEventListener("click", () => ask({ offset: Math.max(0, q.offset - q.limit) }));
$("next").addEventListener("click", () => ask({ offset: q.offset + q.limit }));

const perSecond = x => short(x);
const bits = x => short(x, "bit/s");
const charts = {
  packets: new Chart($("tile-packets"), "Packets", "pps", perSecond, [
    { label: "received", color: "--first", of: p => p.received }, { label: "forwarded", color: "--second", of: p => p.forwarded }]),
  bits: new Chart($("tile-bits"), "Traffic", "bit/s", bits, [
    { label: "in", color: "--first", of: p => p.in_bits }, { label: "out", color: "--second", of: p => p.out_bits }]),
  conns: new Chart($("tile-conns"), "Open connections", "", perSecond, [{ label: "new a second", color: "--first", of: p => p.conns }]),
  drops: new Chart($("tile-drops"), "Dropped", "pps", perSecond, [{ label: "dropped", color: "--down", of: p => p.dropped }]),
};

function show(s) {
  const now = s.now, status = s.status;
  if (now && now.t > (points.at(-1)?.t ?? 0)) points = [...points, now].slice(-keep);
  const none = ["–", ""], received = s.total.received;
  charts.packets.show(points, now ? parts(now.received) : none);
  charts.bits.show(points, now ? parts(now.in_bits + now.out_bits) : none, now?.bridged ? "segments " + bits(now.bridged) : "services");
  charts.conns.show(points, [whole(status.connections), "of " + short(status.capacity)], status.half_open ? short(status.half_open) + " half-open" : "");
  charts.drops.show(points, now ? parts(now.dropped) : none, received ? (100 * s.total.dropped / received).toFixed(2) + " % so far" : "");

  keyed($("verdicts"), ["received", "forwarded", "answered", "punted", "consumed", "dropped", "held"], k => k, k => el("div", {}, el("span", {}, k), el("b")), (e, k) => say(e.lastChild, whole(s.total[k])));
  tables.services(s.services, q);
  q.offset = s.services.offset;
  tables.workers(s.workers);
  tables.ports(s.ports);
  tables.segments(s.segments);
  tables.drops(s.drops, means);

  say($("about"), `${status.version}, generation ${status.generation}, up ${span((s.t - Date.parse(status.started)) / 1000)}`);
  const h = status.health, wrong = [];
  if (!status.last_reload_ok && !status.last_reload.startsWith("none")) wrong.push({ text: "The last reload was refused: " + status.last_reload, down: true });
  for (const w of status.warnings ?? []) wrong.push({ text: w });
  keyed($("notices"), wrong, w => w.text, w => el("p", { class: w.down ? "notice down" : "notice" }, w.text), () => {});
  const title = (h.down ? `(${h.down} down) ` : "") + "weir" + ($("host").textContent ? " – " + $("host").textContent : "");
  if (document.title !== title) document.title = title;
}

stream = new Stream(query, {
  hello(h) {
    means = h.drops;
    say($("host"), h.host);
    const all = new Map([...points, ...h.history].map(p => [p.t, p]));
    points = [...all.values()].sort((a, b) => a.t - b.t).slice(-keep);
    forget();
  },
  news,
  sample: show,
  link(there) {
    mark(document.body, there ? "live" : "lost");
    say($("link-text"), there ? "live" : "connection lost, retrying");
  },
});
