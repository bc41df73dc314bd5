// The tables of services, workers, ports, segments and drops. Each takes a part of a sample and changes rows in place.

import { $, count, el, keyed, mark, pill, rate, row, say, setPill, text } from "./dom.js";
import { span, whole } from "./format.js";

const body = (parent, kind = "tbody") => parent.querySelector(kind);

// why is what a backend's state needs said.
function why(b) {
  const since = span(b.since_s ?? 0);
  switch (b.state) {
    case "down": return `for ${since}: ${b.why ?? ""}`;
    case "drain": return `for ${since}, ${whole(b.left)} left` + (b.ends_in_s ? `, ends in ${span(b.ends_in_s)}` : "");
    case "drained": return `${whole(b.left ?? 0)} left: ${b.why ?? ""}`;
    case "slow_start": return `${b.share} % of its weight`;
  }
  return b.check?.why ? `${b.check.run} of its checks failed: ${b.check.why}` : "";
}

const named = (name, at) => name && name !== at && !at.startsWith(name + ":") && name !== at.replace(/^\[|\].*$/g, "") ? [name, at] : ["", at];

// head fills a first cell: the name, and what stands behind it in a quieter colour.
function head(cell, name, at, below = "") {
  if (!cell.firstChild) cell.append(el("span", { class: "title" }), el("span", { class: "at" }), el("span", { class: "why" }));
    cell.children[1].before(" "); // where a line may break
  const [title, rest, more] = cell.children;
  say(title, name);
  say(rest, at);
  say(more, below);
  title.hidden = !name;
  more.hidden = !below;
}

const rates = ["Conn/s", "*Pkt/s in", "*Pkt/s out", "Bit/s in", "Bit/s out"];

function setRates(cells, r) {
  [r.conns, r.in_packets, r.out_packets, 8 * r.in_bytes, 8 * r.out_bytes].forEach((x, i) => rate(cells[i], x));
}

function serviceRow(tr, s) {
  const [name, state, weight, active, inactive, ...rest] = tr.cells;
  const scheduler = [s.scheduler, ...(s.flags ?? []), s.one_packet ? "one packet" : "", s.persistence ? `persistent ${span(s.persistence.timeout_s)}` : ""].filter(Boolean).join(", ");
  head(name, s.name, `${s.protocol} ${s.at}`);
  say(name.lastChild, scheduler);
  name.lastChild.hidden = false;
  if (!state.firstChild) state.append(el("div", { class: "strip" }));
  const parts = ["up", "slow_start", "drain", "drained", "down"].filter(k => s.states[k] || k === "up").map(k => ({ k, n: s.states[k] }));
  keyed(state.firstChild, parts, p => p.k, pill, (e, p) => setPill(e, p.k === "up" && !p.n ? "down" : p.k, `${p.n} ${p.k.replace("_", " ")}`));
  text(weight, "");
  count(active, s.active);
  count(inactive, s.inactive);
  setRates(rest, s.rate);
}

function backendRow(tr, b) {
  const [name, state, weight, active, inactive, ...rest] = tr.cells;
  const [title, at] = named(b.name, b.at), note = why(b);
  head(name, title, at + (b.forward === "nat" ? "" : " " + b.forward) + (b.backup ? " backup" : ""), note);
  if (!state.firstChild) state.append(pill());
  setPill(state.firstChild, b.state);
  mark(name.lastChild, b.state === "down" ? "why down-text" : "why");
  mark(tr, "below is-" + b.state);
  count(weight, b.weight);
  count(active, b.active);
  count(inactive, b.inactive);
  setRates(rest, b.rate);
}

// services shows a page of services, each in a tbody of its own with its backends.
export function services(page, q) {
  const table = $("services").querySelector("table");
  keyed(table, page.rows, s => s.id, s => {
    const group = el("tbody", { role: "rowgroup" });
    group.append(row("top", "", "", "Weight", "Active", "Inactive", ...rates));
    group.dataset.service = s.id;
    return group;
  }, (group, s) => {
    serviceRow(group.rows[0], s);
    keyed(group, s.backends, b => b.at, b => {
      const tr = row("below", "", "", "Weight", "Active", "Inactive", ...rates);
      tr.dataset.backend = b.at;
      return tr;
    }, backendRow, 1);
    let more = group.more;
    if (s.more && !more) {
      more = group.more = el("tr", { role: "row", class: "below" }, el("td", { role: "cell", colspan: "10", class: "muted" }));
    }
    if (more) {
      say(more.firstChild, `and ${whole(s.more ?? 0)} more: weir list shows all`);
      more.hidden = !s.more;
      group.append(more);
    }
  }, 1);
  table.hidden = !page.rows.length;
  say($("services-count"), page.found === page.total ? whole(page.total) : `${whole(page.found)} of ${whole(page.total)}`);
  const empty = $("services-empty");
  empty.hidden = page.rows.length > 0;
  say(empty, page.total ? "No service is like this." : "There are no services.");
  $("pager").hidden = page.found <= q.limit && page.offset === 0;
  say($("page"), `${whole(page.offset + 1)} to ${whole(page.offset + page.rows.length)} of ${whole(page.found)}`);
  $("previous").disabled = page.offset === 0;
  $("next").disabled = page.offset + page.rows.length >= page.found;
}

export function workers(all) {
  keyed(body($("workers")), all, w => w.worker, w => {
    const tr = row("", "", "", "Pkt/s", "Vectors/s", "Per vector", "Sleeps/s");
    tr.cells[1].append(el("div", { class: "meter" }, el("div", { class: "track", role: "presentation" }, el("div")), el("span")));
    return tr;
  }, (tr, w) => {
    const [name, load, packets, vectors, mean, sleeps] = tr.cells;
    const stuck = w.heartbeat_age_s > 2 ? `no sign of life for ${span(w.heartbeat_age_s)}` : "";
    head(name, `Worker ${w.worker}`, w.cpu < 0 ? w.wait : `cpu ${w.cpu}, ${w.wait}`, stuck);
    mark(name.lastChild, "why down-text");
    const [track, percent] = load.firstChild.children, full = Math.round(100 * w.load);
    track.firstChild.style.width = full + "%";
    track.firstChild.classList.toggle("hot", w.mean > 192 && w.load > .9);
    say(percent, full + " %");
    rate(packets, w.packets);
    rate(vectors, w.vectors_ps);
    rate(mean, w.mean);
    rate(sleeps, w.sleeps_ps);
  });
}

export function ports(all) {
  keyed(body($("ports")), all, p => p.name, () => row("", "", "", "Received/s", "Sent/s", "Lost/s", "Lost"), (tr, p) => {
    const [name, state, rx, tx, lostPS, lost] = tr.cells;
    head(name, p.name, [p.interface, p.driver + (p.mode && p.mode !== p.driver ? " " + p.mode : ""), p.vlan ? "vlan " + p.vlan : ""].filter(Boolean).join(", "));
    if (!state.firstChild) state.append(pill());
    setPill(state.firstChild, p.up ? "up" : "down");
    rate(rx, p.rx_ps);
    rate(tx, p.tx_ps);
    rate(lostPS, p.lost_ps);
    count(lost, p.rx_lost + p.send_lost);
  });
}

const segmentLabels = ["", "", "Stations", "*Frames/s in", "*Frames/s out", "Bit/s in", "Bit/s out"];
const setPlace = (cells, r) => [r.in_frames, r.out_frames, 8 * r.in_bytes, 8 * r.out_bytes].forEach((x, i) => rate(cells[i], x));

export function segments(page) {
  $("segments").hidden = $("to-segments").hidden = !page.total;
  say($("segments-count"), page.found === page.total ? whole(page.total) : `${whole(page.found)} of ${whole(page.total)}` + (page.rows.length < page.found ? `, the first ${page.rows.length}` : ""));
  keyed($("segments").querySelector("table"), page.rows, s => s.vni, () => {
    const group = el("tbody", { role: "rowgroup" });
    group.append(row("top", ...segmentLabels));
    return group;
  }, (group, s) => {
    const [name, state, stations, ...rest] = group.rows[0].cells;
    head(name, `VNI ${s.vni}`, `VTEP ${s.vtep}` + (s.group ? `, group ${s.group}` : ""), [s.reason, s.gateway ? "gateway " + s.gateway.addresses.join(", ") : "", s.strangers ? `${s.strangers.length} strangers` : ""].filter(Boolean).join("; "));
    if (!state.firstChild) state.append(pill());
    setPill(state.firstChild, s.state);
    count(stations, s.stations.used);
    setPlace(rest, s.rate);
    const places = [
      ...s.peers.map((p, i) => ({ key: "peer " + p.address, title: p.address, at: "peer" + (p.adopted ? ", adopted" : ""), state: p.state, stations: p.stations, rate: s.peer_rates[i] })),
      ...s.access.map((a, i) => ({ key: "port " + a.port + " " + a.vlan, title: a.port, at: "access" + (a.vlan ? ", vlan " + a.vlan : ""), stations: a.stations, rate: s.access_rates[i] }))];
    keyed(group, places, p => p.key, () => row("below", ...segmentLabels), (tr, p) => {
      const [name, state, stations, ...rest] = tr.cells;
      head(name, p.title, p.at);
      if (p.state) {
        if (!state.firstChild) state.append(pill());
        setPill(state.firstChild, { resolved: "up", unresolved: "warn", no_route: "down" }[p.state] ?? "", p.state.replace("_", " "));
      }
      count(stations, p.stations);
      setPlace(rest, p.rate);
    }, 1);
  }, 1);
}

export function drops(all, means) {
  const table = $("drops").querySelector("table");
  table.hidden = !all.length;
  $("drops-empty").hidden = all.length > 0;
  say($("drops-count"), all.length ? `${all.length} reason${all.length > 1 ? "s" : ""}` : "");
  keyed(body(table), all, d => d.reason, () => row("", "", "Frames/s", "Frames"), (tr, d) => {
    const [name, ps, frames] = tr.cells;
    head(name, d.reason, d.limit ? "a limit" : "", means[d.reason] ?? "");
    rate(ps, d.ps);
    count(frames, d.frames);
  });
}
