// The view *Tail*: any topic, decoded, as it comes. The number of rows is bounded, and so is what is
// drawn in a frame: whatever the rate, the page stays quick.

import { ask } from '../ask.js';
import { make, replace, write } from '../dom.js';
import { address } from '../route.js';
import { count, whole } from '../words.js';
import { Row } from './row.js';

const MOST = 300;

export class Tail {
  constructor(host) {
    this.cursor = null;
    this.paused = false;
    this.visits = 0;
    this.waiting = [];
    this.rows = [];
    this.places = new Set();
    this.build(host);
  }

  build(host) {
    this.topic = make('select', { id: 'tail-topic' });
    this.filter = make('input', { type: 'search', placeholder: 'words that must be in it', autocomplete: 'off' });
    this.pause = make('button', { type: 'button', 'aria-pressed': 'false', onclick: () => this.stop() }, 'Pause');
    this.status = make('p', { class: 'quiet status', role: 'status' });
    this.list = make('ol', { class: 'records' });
    const form = make(
      'form',
      { class: 'search' },
      make('label', { for: 'tail-topic' }, make('span', {}, 'topic'), this.topic),
      make('label', { class: 'wide' }, make('span', {}, 'filter'), this.filter),
      this.pause,
      make('button', { type: 'button', onclick: () => this.clear() }, 'Clear'),
    );
    const go = () => {
      location.hash = address('tail', [this.topic.value], { filter: this.filter.value.trim() });
    };
    this.topic.addEventListener('change', go);
    this.filter.addEventListener('change', go);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      go();
    });
    host.append(make('h2', { class: 'away' }, 'Tail'), form, this.status, this.list);
  }

  async enter({ path, query }) {
    this.visits += 1;
    const visit = this.visits;
    if (!this.topic.options.length) {
      try {
        const { topics } = await ask('api/about');
        // Whoever left meanwhile, or went on to another topic, is not followed.
        if (visit !== this.visits) return;
        replace(this.topic, topics.map((name) => make('option', { value: name }, name)));
      } catch (error) {
        if (visit === this.visits) write(this.status, error.message);
        return;
      }
    }
    const topic = path[0] ?? this.shown?.topic ?? 'prompts';
    const filter = query.filter ?? '';
    if (![...this.topic.options].some(({ value }) => value === topic)) {
      this.close();
      write(this.status, `There is no topic ${topic}.`);
      return;
    }
    this.topic.value = topic;
    this.filter.value = filter;
    if (this.shown?.topic !== topic || this.shown?.filter !== filter) {
      this.shown = { topic, filter };
      this.clear();
      this.cursor = null;
      this.paused = false;
    }
    this.open();
  }

  leave() {
    this.visits += 1;
    this.close();
  }

  open() {
    this.close();
    this.said();
    if (this.paused) return;
    const query = new URLSearchParams({ topic: this.shown.topic });
    if (this.shown.filter) query.set('filter', this.shown.filter);
    if (this.cursor) query.set('since', this.cursor);
    this.source = new EventSource(`api/tail?${query}`);
    this.source.onopen = () => this.said();
    this.source.onerror = () => {
      write(this.status, 'Connection lost, trying again.');
      if (this.source?.readyState === EventSource.CLOSED) {
        this.timer ??= setTimeout(() => {
          this.timer = null;
          this.open();
        }, 2000);
      }
    };
    this.source.addEventListener('record', (event) => {
      this.cursor = event.lastEventId || this.cursor;
      this.take(JSON.parse(event.data));
    });
    this.source.addEventListener('skipped', (event) => {
      this.take({ skipped: JSON.parse(event.data).count });
    });
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    this.timer = null;
  }

  stop() {
    if (!this.shown) return;
    this.paused = !this.paused;
    this.open();
  }

  said() {
    this.pause.setAttribute('aria-pressed', String(this.paused));
    write(this.pause, this.paused ? 'Go on' : 'Pause');
    const words = this.shown?.filter ? ` with \u201c${this.shown.filter}\u201d` : '';
    const state = this.paused ? 'Paused at' : 'Following';
    write(this.status, `${state} ${this.shown?.topic ?? ''}${words}; the newest ${whole(MOST)} are kept.`);
  }

  take(record) {
    if (!record.skipped) {
      // A server that was started again begins with what was shown already.
      const place = `${record.partition}:${record.offset}`;
      if (this.places.has(place)) return;
      this.places.add(place);
      if (this.places.size > 4 * MOST) this.places = new Set([...this.places].slice(-MOST));
    }
    this.waiting.push(record);
    // What would be thrown out again at once is never drawn.
    if (this.waiting.length > MOST) this.waiting.splice(0, this.waiting.length - MOST);
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  draw() {
    const fresh = this.waiting.map((record) =>
      record.skipped
        ? make('li', { class: 'gap' }, `${count(record.skipped, 'record')} went by too fast to be shown`)
        : new Row(record).box,
    );
    this.waiting = [];
    this.rows.push(...fresh);
    this.list.prepend(...fresh.reverse());
    while (this.rows.length > MOST) this.rows.shift().remove();
  }

  clear() {
    this.rows = [];
    this.waiting = [];
    this.places = new Set();
    replace(this.list);
  }
}
