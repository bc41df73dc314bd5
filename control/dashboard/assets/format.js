// Numbers as people read them. Units are those of the API: events a second, bytes a second, frames.

const units = ["", "k", "M", "G", "T", "P"];

// parts is x with three digits and a unit of a thousand: [12.3, "k"]. Rates below ten have one digit behind the point.
export function parts(x) {
  let n = Math.max(0, x || 0), i = 0;
  while (n >= 999.5 && i < units.length - 1) {
    n /= 1000;
    i++;
  }
  const digits = n >= 99.95 ? 0 : n >= 9.995 ? (i ? 1 : 0) : i ? 2 : Number.isInteger(n) || n < 0.05 ? 0 : 1;
  return [n.toFixed(digits), units[i]];
}

// short is parts as text, with a unit behind: "12.3 kbit/s".
export function short(x, unit = "") {
  const [n, k] = parts(x);
  return (n + " " + k + unit).trim();
}

// whole is a count with thousands set apart by a thin space.
export function whole(n) {
  return String(Math.max(0, Math.round(n || 0))).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

// span is a time in seconds: 14 s, 3 min, 5 h 12 min, 9 d 4 h.
export function span(s) {
  s = Math.max(0, Math.floor(s));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

// clock is the time of day of a Date, as the viewer's own clock has it.
export function clock(d) {
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map(n => String(n).padStart(2, "0")).join(":");
}
