// The connection to weir: one EventSource that comes back by itself.

const retry = 2000; // milliseconds
const silence = 5000; // a sample comes each second; after so long without one the connection is dead, whatever TCP says
const unseen = 60000; // a page that nobody sees costs nothing after so long

export class Stream {
  // query is a function that gives the URL's parameters; on has hello, news, sample, and link, which is told true or false.
  constructor(query, on) {
    this.query = query;
    this.on = on;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.hiding);
      if (document.hidden) this.hiding = setTimeout(() => this.close(), unseen);
      else if (!this.source) this.open();
    });
    this.open();
  }

  open() {
    this.close();
    const source = this.source = new EventSource("api/live?" + this.query());
    for (const name of ["hello", "news", "sample"]) {
      source.addEventListener(name, e => {
        if (source !== this.source) return;
        this.heard();
        this.on[name](JSON.parse(e.data));
      });
    }
    source.onerror = () => source === this.source && this.lost();
    this.watch = setTimeout(() => this.lost(), silence);
  }

  heard() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.lost(), silence);
    this.on.link(true);
  }

  lost() {
    this.close();
    this.on.link(false);
    this.again = setTimeout(() => this.open(), retry);
  }

  close() {
    clearTimeout(this.watch);
    clearTimeout(this.again);
    this.source?.close();
    this.source = null;
  }
}
