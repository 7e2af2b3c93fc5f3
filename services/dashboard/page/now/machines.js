// Who runs and what flows: engines, consumers' lag, writers, topics, alarms.

import { bar } from '../charts/bar.js';
import { make, replace, write } from '../dom.js';
import { word } from '../hints.js';
import { Table, link, panel } from '../panel.js';
import { address, toVersion } from '../route.js';
import { NONE, ago, millis, number, plain, whole } from '../words.js';

const STATES = { applied: 'good', serving: 'good', loaded: 'good', refused: 'bad' };

/** A figure that says how it is known. */
function told(cell, text, source) {
  if (cell.firstElementChild?.dataset.say !== source) {
    replace(cell, word(text, null, source));
    cell.firstElementChild.dataset.name = 'How this is known';
  }
  write(cell.firstElementChild, text);
}

/** An alarm's stream, and under it what the alarm says. */
function worded(cell, { stream, message }) {
  if (!cell.firstElementChild) cell.append(make('div'), make('div', { class: 'quiet' }));
  write(cell.firstElementChild, plain(stream));
  write(cell.lastElementChild, message ?? '');
}

export class Engines {
  constructor(host, live) {
    const { box, body } = panel('Engines', 'engines', { hint: 'engines' });
    host.append(box);
    const path = 'engines.engines';
    this.table = new Table(
      body,
      [
        { name: 'engine', hint: `${path}.engine`, text: ({ engine }) => engine },
        {
          name: 'version',
          hint: `${path}.version`,
          put: (cell, row) => link(cell, row.version, toVersion(row.version)),
        },
        {
          name: 'state',
          hint: `${path}.state`,
          kind: (row) => (row.stale ? 'warn' : STATES[row.state]),
          wraps: true,
          text: (row) => (row.stale ? 'not heard' : row.reason ? `${row.state}: ${row.reason}` : row.state),
        },
        { name: 'answers/s', hint: `${path}.answers_per_s`, number: true, text: (row) => number(row.answers_per_s, 1) },
        { name: 'tokens/s', hint: `${path}.tokens_per_s`, number: true, text: (row) => whole(row.tokens_per_s) },
        { name: 'first token', hint: `${path}.ttft_p50_ms`, number: true, text: (row) => millis(row.ttft_p50_ms) },
        { name: 'p95', hint: `${path}.ttft_p95_ms`, number: true, text: (row) => millis(row.ttft_p95_ms) },
        {
          name: 'errors',
          hint: `${path}.errors`,
          number: true,
          kind: ({ errors }) => (errors ? 'bad' : null),
          text: ({ errors }) => whole(errors),
        },
        { name: 'heard', hint: `${path}.time_ms`, text: (row) => ago(row.time_ms, live.now()) },
      ],
      ({ engine }) => engine,
      { label: 'Engines', empty: 'no engine was heard in the last hour' },
    );
    live.on('engines', ({ engines }) => this.table.set(engines));
  }
}

export class Lag {
  constructor(host, live) {
    const { box, body, side } = panel('Waiting to be read', 'lag', { hint: 'lag' });
    this.when = make('span', { class: 'quiet' });
    side.append(this.when);
    host.append(box);
    this.most = 1;
    const path = 'lag.consumers';
    this.table = new Table(
      body,
      [
        { name: 'consumer', hint: `${path}.consumer`, text: ({ consumer }) => consumer },
        { name: 'topic', hint: `${path}.topic`, text: ({ topic }) => topic },
        {
          name: 'records',
          hint: `${path}.records`,
          number: true,
          put: (cell, { records, source }) => told(cell, whole(records), source),
        },
        { name: '', put: (cell, row) => replace(cell, bar((row.records ?? 0) / this.most, 'lagging')) },
      ],
      ({ consumer, topic }) => `${consumer} ${topic}`,
      { label: 'Consumers and how far behind they are', empty: 'nobody reads yet' },
    );
    live.on('lag', ({ consumers, time_ms }) => {
      this.most = Math.max(10, ...consumers.map(({ records }) => records ?? 0));
      this.table.set(consumers);
      write(this.when, time_ms ? `asked ${ago(time_ms, live.now())}` : '');
    });
  }
}

export class Writers {
  constructor(host, live) {
    const { box, body } = panel('Processes', 'writers', { hint: 'processes' });
    host.append(box);
    const path = 'processes.writers';
    this.table = new Table(
      body,
      [
        { name: 'process', hint: `${path}.name`, text: ({ name }) => name },
        {
          name: 'state',
          hint: `${path}.silent`,
          kind: ({ silent }) => (silent ? 'warn' : 'good'),
          text: ({ silent }) => (silent ? 'silent' : 'speaks'),
        },
        { name: 'last record', hint: `${path}.time_ms`, text: (row) => ago(row.time_ms, live.now()) },
        { name: 'on', hint: `${path}.topic`, text: ({ topic }) => topic },
        { name: 'records', hint: `${path}.records`, number: true, text: ({ records }) => whole(records) },
      ],
      ({ name }) => name,
      { label: 'Processes by their last record', empty: 'nobody wrote yet' },
    );
    live.on('processes', ({ writers }) => this.table.set(writers));
  }
}

export class Topics {
  constructor(host, live) {
    const { box, body, side } = panel('Topics', 'topics', { hint: 'traffic' });
    this.viewers = make('span', { class: 'quiet word', tabindex: 0, 'data-hint': 'traffic.viewers' });
    side.append(this.viewers);
    host.append(box);
    const path = 'traffic.topics';
    this.table = new Table(
      body,
      [
        {
          name: 'topic',
          hint: `${path}.topic`,
          put: (cell, { topic }) => link(cell, topic, address('tail', [topic])),
        },
        { name: 'a second', hint: `${path}.per_s`, number: true, text: (row) => number(row.per_s, 1) },
        { name: 'records', hint: `${path}.records`, number: true, text: (row) => whole(row.records) },
        {
          name: 'unreadable',
          hint: `${path}.unreadable`,
          number: true,
          kind: ({ unreadable, missing }) => (unreadable || missing ? 'bad' : null),
          text: (row) => (row.missing ? 'not there' : whole(row.unreadable)),
        },
        { name: 'newest', hint: `${path}.time_ms`, text: (row) => ago(row.time_ms, live.now()) },
      ],
      ({ topic }) => topic,
      { label: 'Topics' },
    );
    this.drops = make('ul', { class: 'drops' });
    body.append(this.drops);
    live.on('traffic', (section) => this.set(section));
  }

  set({ topics, drops, viewers, skipped }) {
    this.table.set(topics);
    const late = skipped ? `, ${whole(skipped)} pictures skipped` : '';
    write(this.viewers, `${whole(viewers)} watching${late}`);
    replace(
      this.drops,
      drops.map(({ reason, count }) => make('li', {}, `${whole(count)} let go: ${plain(reason)}`)),
    );
  }
}

export class Alarms {
  constructor(host, live) {
    const { box, body, side } = panel('Alarms', 'alarms', { hint: 'alarms' });
    this.sum = make('span', { class: 'quiet word', tabindex: 0, 'data-hint': 'alarms.fired' });
    side.append(this.sum);
    host.append(box);
    const path = 'alarms.recent';
    const value = (given) => (given === null ? NONE : number(given, 3));
    this.table = new Table(
      body,
      [
        {
          name: 'state',
          hint: `${path}.state`,
          kind: ({ state, isOpen }) => (isOpen ? 'bad' : state === 'cleared' ? 'good' : null),
          text: ({ state, isOpen }) => (isOpen ? 'open' : state),
        },
        { name: 'stream', hint: `${path}.stream`, wraps: true, put: worded },
        { name: 'saw', hint: `${path}.value`, number: true, text: (row) => value(row.value) },
        { name: 'expected', hint: `${path}.baseline`, number: true, text: (row) => value(row.baseline) },
        { name: 'detector', hint: `${path}.detector`, text: ({ detector }) => detector ?? '' },
        { name: 'when', hint: `${path}.time_ms`, text: (row) => ago(row.time_ms, live.now()) },
      ],
      (row) => `${row.stream} ${row.detector} ${row.state} ${row.time_ms}`,
      { label: 'Alarms, newest first', empty: 'no alarm yet' },
    );
    live.on('alarms', ({ open, recent, fired }) => {
      const key = (row) => `${row.stream} ${row.detector} ${row.time_ms}`;
      const known = new Set(open.map(key));
      const older = recent.filter((row) => !known.has(key(row)) || row.state !== 'fired');
      this.table.set([...open.map((row) => ({ ...row, isOpen: true })), ...older]);
      write(this.sum, `fired ${whole(fired)} times`);
    });
  }
}
