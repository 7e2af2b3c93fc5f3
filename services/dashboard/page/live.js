// The live picture: one EventSource, one event name per section. What came last of each section is
// kept, so that a tab that opens later has it at once. A lost line is said, and comes back by itself;
// `traffic` comes with every refresh, so silence is a lost line too.

const SILENCE_MS = 8_000;
const PATIENCE_MS = 120_000;

export class Live {
  /** `said(state, words)` hears how the line is: live, quiet or lost. */
  constructor(url, said) {
    this.url = url;
    this.said = said;
    this.last = new Map();
    this.listeners = new Map();
    this.state = '';
    this.wait_ms = 500;
    this.silence_ms = SILENCE_MS;
    this.heard_ms = Date.now();
    this.skew_ms = 0;
    this.open();
    this.on('traffic', (traffic) => {
      this.skew_ms = traffic.now_ms - Date.now();
    });
    setInterval(() => this.check(), 1000);
    window.addEventListener('online', () => this.again());
    document.addEventListener('visibilitychange', () => document.hidden || this.check());
  }

  /** The dashboard's clock: times of the log are nearer to it than to the viewer's. */
  now() {
    return Date.now() + this.skew_ms;
  }

  open() {
    this.source?.close();
    this.source = new EventSource(this.url);
    this.source.onopen = () => {
      this.wait_ms = 500;
      this.alive();
    };
    this.source.onerror = () => this.lost();
    for (const name of this.listeners.keys()) this.attach(name);
  }

  attach(name) {
    this.source.addEventListener(name, (event) => {
      this.alive();
      const value = JSON.parse(event.data);
      this.last.set(name, value);
      for (const listener of this.listeners.get(name)) listener(value);
    });
  }

  /** Hear a section: at once what is known of it, then each time it changes. */
  on(name, listener) {
    if (!this.listeners.has(name)) {
      this.listeners.set(name, []);
      this.attach(name);
    }
    this.listeners.get(name).push(listener);
    if (this.last.has(name)) listener(this.last.get(name));
  }

  /** Tell again what is known of some sections. */
  repeat(names) {
    for (const name of names) {
      if (!this.last.has(name)) continue;
      for (const listener of this.listeners.get(name) ?? []) listener(this.last.get(name));
    }
  }

  alive() {
    this.heard_ms = Date.now();
    this.say('live', 'live');
  }

  lost() {
    this.say('lost', 'connection lost, trying again');
    // The browser itself tries again, but not after an answer that is an error.
    if (this.source.readyState === EventSource.CLOSED && !this.timer) {
      this.timer = setTimeout(() => this.again(), this.wait_ms);
      this.wait_ms = Math.min(this.wait_ms * 2, 10_000);
    }
  }

  again() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.state !== 'live') this.open();
  }

  check() {
    const silent_ms = Date.now() - this.heard_ms;
    if (this.state === 'live' && silent_ms > this.silence_ms) {
      this.say('lost', 'nothing heard, trying again');
      // A slow line may need longer for one section: asked again as soon, it would never come.
      this.silence_ms = Math.min(this.silence_ms * 2, PATIENCE_MS);
      this.heard_ms = Date.now();
      this.open();
    }
  }

  say(state, words) {
    if (state === this.state) return;
    this.state = state;
    this.said(state, words);
  }
}
