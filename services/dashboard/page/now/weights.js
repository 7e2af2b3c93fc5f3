// What the weights make of it: versions along time, and the figures of training.

import { spark } from '../charts/spark.js';
import { Timeline } from '../charts/timeline.js';
import { keep, make, replace, write } from '../dom.js';
import { word } from '../hints.js';
import { Table, link, panel } from '../panel.js';
import { toVersion } from '../route.js';
import { ago, bytes, millis, number, percent, plain, seconds, whole } from '../words.js';

const LISTED = 40;

/** `{a: 3, b: 1}` as "3 a, 1 b". */
export function mixture(parts) {
  return Object.entries(parts)
    .sort(([, one], [, other]) => other - one)
    .map(([name, many]) => `${whole(many)} ${plain(name)}`)
    .join(', ');
}

const pause = (version) => {
  const known = version.engines.map((engine) => engine.pause_ms).filter((ms) => ms !== null);
  return known.length ? Math.max(...known) : null;
};

export class Versions {
  constructor(host, live) {
    this.live = live;
    const { box, body, side } = panel('Versions', 'versions', { hint: 'versions' });
    this.release = make('span', { class: 'quiet word', tabindex: 0, 'data-hint': 'versions.release' });
    side.append(this.release);
    host.append(box);
    this.chart = new Timeline(body, {
      label: 'Versions along time',
      none: 'no version yet',
      height: 190,
      lanes: [
        { key: 'answers', name: 'trained on', say: whole },
        { key: 'bytes', name: 'size', say: bytes, beside: 'keyframe' },
        { key: 'pause_ms', name: 'pause', say: millis },
      ],
      chosen: ({ version }) => (location.hash = toVersion(version)),
    });
    this.table = new Table(body, this.columns(), ({ version }) => version, {
      label: 'The newest versions',
      empty: 'no version yet',
    });
    live.on('versions', (section) => this.set(section));
  }

  columns() {
    const path = 'versions.timeline';
    return [
      {
        name: 'version',
        hint: `${path}.version`,
        put: (cell, row) => link(cell, row.version, toVersion(row.version)),
      },
      { name: 'kind', hint: `${path}.kind`, text: ({ kind }) => kind },
      {
        name: 'trained on',
        hint: `${path}.answers`,
        number: true,
        text: ({ answers }) => (answers ? whole(answers) : ''),
      },
      { name: 'by', hint: `${path}.objectives`, wraps: true, text: ({ objectives }) => mixture(objectives) },
      { name: 'spoken of by', hint: `${path}.sources`, wraps: true, text: ({ sources }) => mixture(sources) },
      { name: 'size', hint: `${path}.bytes`, number: true, text: (row) => (row.bytes ? bytes(row.bytes) : '') },
      {
        name: 'pause',
        hint: `${path}.engines.pause_ms`,
        number: true,
        text: (row) => (pause(row) === null ? '' : millis(pause(row))),
      },
      { name: 'answers since', hint: `${path}.sampled`, number: true, text: ({ sampled }) => whole(sampled) },
      { name: 'state', hint: `${path}.serving`, wraps: true, kind: (row) => this.state(row)[0], text: (row) => this.state(row)[1] },
      { name: 'published', hint: `${path}.time_ms`, text: (row) => ago(row.time_ms, this.live.now()) },
    ];
  }

  state(row) {
    const refused = row.engines.filter(({ state }) => state === 'refused');
    if (row.withdrawn) return ['warn', 'withdrawn'];
    if (refused.length) return ['bad', `refused: ${refused[0].reason ?? 'no reason given'}`];
    if (row.serving.length) return ['good', `serves on ${row.serving.join(', ')}`];
    return [null, ''];
  }

  set({ timeline, release }) {
    write(this.release, release);
    this.chart.set(
      timeline.map((row) => ({
        x: row.time_ms,
        version: row.version,
        name: `version ${row.version}`,
        short: String(row.version),
        kind: row.withdrawn ? 'withdrawn' : row.kind,
        answers: row.answers,
        bytes: row.bytes,
        pause_ms: pause(row),
        note: [row.kind, mixture(row.objectives), this.state(row)[1]].filter(Boolean).join(' \u00b7 '),
      })),
    );
    this.table.set(timeline.slice(-LISTED).reverse());
  }
}

const FIGURES = [
  ['staleness', 'staleness', (value) => `${number(value, 1)} versions`],
  ['ess', 'ESS', percent],
  ['mismatch_kl', 'mismatch KL', (value) => number(value, 4)],
  ['entropy', 'entropy', (value) => `${number(value)} nats`],
  ['length_tokens', 'length', (value) => `${number(value, 0)} tokens`],
  ['clip_fraction', 'clipped', (value) => percent(value, 1)],
  ['grad_norm', 'gradient', number],
  ['kl_base', 'KL to version 0', (value) => number(value, 4)],
  ['step_s', 'a step takes', seconds],
  ['idle_share', 'waits for data', percent],
];

export class Training {
  constructor(host, live) {
    const { box, body, side } = panel('Training', 'training', { hint: 'training' });
    this.sum = make('span', { class: 'quiet word', tabindex: 0, 'data-hint': 'training.answers' });
    side.append(this.sum);
    this.grid = make('dl', { class: 'figures' });
    this.none = make('p', { class: 'quiet none' }, 'no step yet');
    body.append(this.grid, this.none);
    host.append(box);
    live.on('training', (section) => this.set(section));
  }

  set({ points, steps, answers }) {
    write(this.sum, `${whole(steps)} steps, ${whole(answers)} answers`);
    const known = FIGURES.filter(([key]) => points.some((point) => point[key] !== null));
    this.none.hidden = known.length > 0;
    keep(
      this.grid,
      known,
      ([key]) => key,
      ([key, name]) =>
        make('div', {}, make('dt', {}, word(name, `training.points.${key}`)), make('dd'), make('dd', { class: 'go' })),
      (element, [key, , say]) => {
        const values = points.map((point) => point[key]);
        const newest = values.findLast((value) => value !== null);
        write(element.children[1], say(newest));
        replace(element.children[2], spark(values));
      },
    );
  }
}
