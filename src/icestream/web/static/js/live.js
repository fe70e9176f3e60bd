// Hearing of changes. A page in a hidden tab does not listen: browsers allow few connections, and somebody else may need them.

export class Live {
  constructor(onChange, onState) {
    this.onChange = onChange;
    this.onState = onState;
    this.address = null;
    this.source = null;
    document.addEventListener("visibilitychange", () => this.follow(this.address));
    window.addEventListener("pagehide", () => this.close());
  }

  follow(address) {
    const wanted = document.hidden ? null : address;
    this.address = address;
    if (this.source && this.following === wanted) return;
    this.close();
    this.following = wanted;
    if (wanted === null) return;
    this.source = new EventSource(wanted);
    this.source.onopen = () => this.onState(true);
    this.source.onerror = () => this.onState(false);
    this.source.addEventListener("change", (event) => this.onChange(JSON.parse(event.data)));
  }

  close() {
    this.source?.close();
    this.source = null;
    this.following = null;
  }
}
