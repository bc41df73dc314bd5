// The event log, the latest first.

import { $, el, say } from "./dom.js";
import { clock, whole } from "./format.js";

const kept = 200;
let last = 0;

// told is an event in words: those that people look for have sentences, the others show what the log has.
function told(e) {
  const f = e.fields, rest = Object.entries(f).map(([k, v]) => `${k}=${v}`).join("  ");
  switch (e.message) {
    case "backend_state": return [`${f.backend} of ${f.service}: ${f.old.replace("_", " ")} → ${f.new.replace("_", " ")}`, f.reason ?? ""];
    case "reload": return f.changed ? [`Reloaded: ${f.changed}`, ""] : ["Reload", f.diagnostic ?? rest];
    case "drops begin": return [`Frames are dropped: ${f.reason}`, `${whole(Number(f.count))} at first`];
    case "a limit is reached": return [`A limit is reached: ${f.what}`, `${whole(Number(f.count))} at first`];
    case "port": return [`Port ${f.port}: ${f.err}`, ""];
    case "port is back": return [`Port ${f.port} is back`, ""];
  }
  return [e.message.charAt(0).toUpperCase() + e.message.slice(1), rest];
}

export function news(all) {
  const log = $("log");
  if (all.length && all.at(-1).seq < last) { // of another weir
    log.replaceChildren();
    last = 0;
  }
  for (const e of all) {
    if (e.seq <= last) continue;
    last = e.seq;
    const [what, fields] = told(e), at = new Date(e.time);
    const time = el("time", { datetime: e.time, title: at.toLocaleString() }, clock(at));
    const level = { warn: "warn", error: "error" }[e.level] ?? "";
    log.prepend(el("li", { "data-kind": e.kind, "data-level": e.level }, time, el("span", { class: "pill " + level }, e.kind + (level ? " !" : "")), el("span", { class: "what" }, what + " ", el("span", { class: "fields" }, fields))));
  }
  while (log.children.length > kept) log.lastElementChild.remove();
  say($("events-count"), "the latest first");
}

// forget is for another weir than before, whose events begin anew.
export function forget() {
  last = 0;
  $("log").replaceChildren();
}
