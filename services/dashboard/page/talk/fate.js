// What became of one feedback: asked again and again, shown as the stations of its way.

import { make, replace } from '../dom.js';
import { chip } from '../tokens.js';
import { clock, plain } from '../words.js';

const GOOD = new Set(['joined', 'corrected']);
const TRAINED = new Set(['trained', 'compensated']);
const QUICK_MS = 1000;
const SLOW_MS = 15_000;
const PATIENCE_MS = 6 * 3_600_000;

/** How far a feedback is: stations {name, state: done, now, later or ended, note}. Pure. */
export function stations(known) {
  const found = [{ name: 'sent', state: 'done' }];
  if (!known || known.outcome === 'pending') {
    return [...found, { name: 'waiting to be joined', state: 'now' }];
  }
  const reason = known.reason ? ` (${plain(known.reason)})` : '';
  if (!GOOD.has(known.outcome)) {
    return [...found, { name: plain(known.outcome) + reason, state: 'ended' }];
  }
  found.push({ name: plain(known.outcome) + reason, state: 'done' });
  if (known.trained_version === null) {
    const decided = known.trajectories.filter(({ outcome }) => outcome !== 'pending');
    const last = decided.find(({ outcome }) => outcome !== 'superseded') ?? null;
    if (last && decided.length === known.trajectories.length && !TRAINED.has(last.outcome)) {
      const why = last.reason ? ` (${plain(last.reason)})` : '';
      return [...found, { name: plain(last.outcome) + why, state: 'ended' }];
    }
    return [...found, { name: 'waiting to be trained', state: 'now' }];
  }
  found.push({ name: 'trained in', state: 'done', version: known.trained_version });
  if (known.serving_since_ms === null) {
    return [...found, { name: 'waiting for an engine', state: 'now' }];
  }
  return [...found, { name: `serving since ${clock(known.serving_since_ms)}`, state: 'done' }];
}

/** Whether nothing more will come of it. */
const settled = (way) => way.every(({ state }) => state !== 'now');

export class Fate {
  /** `said`: what was said, in words. `trained(version)` hears the version it went into. */
  constructor(gateway, feedbackId, said, trained) {
    this.gateway = gateway;
    this.id = feedbackId;
    this.trained = trained;
    this.began_ms = Date.now();
    this.stopped = false;
    this.way = make('ol', { class: 'stations', 'aria-live': 'polite' });
    this.box = make('div', { class: 'fate', 'data-feedback': feedbackId }, make('b', {}, said), this.way);
    this.words = '';
    this.show(stations(null));
    this.ask();
  }

  async ask() {
    const since_ms = Date.now() - this.began_ms;
    let wait_ms = since_ms < 120_000 ? QUICK_MS : SLOW_MS;
    try {
      const known = await this.gateway.fate(this.id);
      if (this.stopped) return;
      const way = stations(known);
      this.show(way);
      if (known?.trained_version != null) this.trained(known.trained_version);
      if (settled(way) || since_ms > PATIENCE_MS) return;
    } catch (error) {
      if (this.stopped) return;
      const state = since_ms > PATIENCE_MS ? 'ended' : 'now';
      this.show([{ name: 'sent', state: 'done' }, { name: error.message, state }]);
      if (state === 'ended') return;
      wait_ms = SLOW_MS / 3;
    }
    this.timer = setTimeout(() => this.ask(), wait_ms);
  }

  show(way) {
    const words = JSON.stringify(way);
    if (words === this.words) return;
    this.words = words;
    this.box.dataset.state = way.at(-1).state;
    replace(
      this.way,
      way.map(({ name, state, version }) =>
        make('li', { 'data-state': state }, name, version === undefined ? null : [' ', chip(version)]),
      ),
    );
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}
