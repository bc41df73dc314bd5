// A chart of the last minutes on a canvas, five when it is full: up to two lines, each with an area below it.

import { el, say } from "./dom.js";
import { clock } from "./format.js";

const spans = [60e3, 120e3, 300e3]; // milliseconds; the first that all points fit in
const gap = 3e3; // between two points: more and the line is broken

// nice is the next of 1, 2, 5, 10, 20, ... that is not below x.
function nice(x) {
  if (!(x > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(x));
  return [1, 2, 5, 10].map(n => n * ten).find(n => n >= x * 0.9999) ?? 10 * ten;
}

export class Chart {
  // lines are {label, color, of}: color is the name of a custom property, of takes a point. unit is what the number in large has behind it.
  constructor(figure, title, unit, format, lines) {
    Object.assign(this, { figure, title, unit, format, lines, points: [], at: null });
    this.big = el("span");
    this.small = el("small", {}, unit);
    this.side = el("span");
    this.values = lines.map(() => el("b"));
    this.canvas = el("canvas", { role: "img" });
    figure.append(
      el("figcaption", {}, title, this.side),
      el("div", { class: "big" }, this.big, this.small),
      el("div", { class: "legend" }, ...lines.map((line, i) => el("span", { class: "ab"[i] }, el("i"), line.label + " ", this.values[i]))),
      this.canvas);
    this.canvas.addEventListener("pointermove", e => this.look(e.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.look(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // show takes all points, the oldest first, and the number in large with its unit.
  show(points, [number, prefix], side) {
    this.points = points;
    say(this.big, number);
    say(this.small, prefix + this.unit);
    say(this.side, side ?? "");
    this.draw();
  }

  look(x) {
    this.at = x;
    this.draw();
  }

  draw() {
    const { canvas, points, lines } = this;
    const w = canvas.clientWidth, h = canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!w || !h) return;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    const c = canvas.getContext("2d"), style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, w, h);
    const end = points.at(-1)?.t ?? Date.now(), top = 14, bottom = h - 1;
    const span = spans.find(s => points.length && end - points[0].t <= s) ?? spans.at(points.length ? -1 : 0);
    const most = nice(Math.max(0, ...points.flatMap(p => lines.map(line => line.of(p)))));
    const x = t => w - (end - t) / span * w, y = v => bottom - v / most * (bottom - top);

    c.font = "11px system-ui, sans-serif";
    c.lineWidth = 1;
    c.strokeStyle = color("--line");
    for (const v of [0, most / 2, most]) {
      c.beginPath();
      c.moveTo(0, Math.round(y(v)) + .5);
      c.lineTo(w, Math.round(y(v)) + .5);
      c.stroke();
    }
    for (const line of lines) {
      c.strokeStyle = c.fillStyle = color(line.color);
      for (const part of unbroken(points)) {
        c.beginPath();
        part.forEach((p, i) => i ? c.lineTo(x(p.t), y(line.of(p))) : c.moveTo(x(p.t), y(line.of(p))));
        c.lineWidth = 1.5;
        c.lineJoin = "round";
        c.stroke();
        c.lineTo(x(part.at(-1).t), bottom);
        c.lineTo(x(part[0].t), bottom);
        c.globalAlpha = .1;
        c.fill();
        c.globalAlpha = 1;
      }
    }
    c.fillStyle = color("--muted");
    c.textAlign = "left";
    c.fillText(this.format(most), 0, 10);

    let shown = points.at(-1), when = span / 60e3 + " min";
    if (this.at !== null && points.length) {
      const t = end - (w - this.at) / w * span;
      shown = points.reduce((a, b) => Math.abs(b.t - t) < Math.abs(a.t - t) ? b : a);
      when = clock(new Date(shown.t));
      c.strokeStyle = color("--muted");
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(Math.round(x(shown.t)) + .5, top);
      c.lineTo(Math.round(x(shown.t)) + .5, bottom);
      c.stroke();
    }
    c.textAlign = "right";
    c.fillText(when, w, 10);
    lines.forEach((line, i) => say(this.values[i], shown ? this.format(line.of(shown)) : "–"));
    const latest = points.at(-1);
    canvas.setAttribute("aria-label", this.title + ": " + (latest ? lines.map(line => line.label + " " + this.format(line.of(latest))).join(", ") : "no numbers yet"));
  }
}

// unbroken cuts points where seconds are missing: nobody watched, or weir was away.
function unbroken(points) {
  const all = [];
  for (const p of points) {
    const last = all.at(-1);
    if (last && p.t - last.at(-1).t <= gap) last.push(p);
    else all.push([p]);
  }
  return all;
}
