// How satisfied people are, and how long what they say takes to be served.

import { Lines } from '../charts/lines.js';
import { bar } from '../charts/bar.js';
import { make, replace, write } from '../dom.js';
import { word } from '../hints.js';
import { Table, panel } from '../panel.js';
import { toVersion } from '../route.js';
import { count, number, percent, seconds } from '../words.js';

export class People {
  constructor(host, live) {
    this.by = 'version';
    this.host = host;
    const { box, body, side } = panel('Satisfied people', 'people', { hint: 'reward' });
    this.body = body;
    this.buttons = ['version', 'time'].map((by) =>
      make('button', { type: 'button', onclick: () => this.choose(by) }, `by ${by}`),
    );
    side.append(make('div', { class: 'switch', role: 'group', 'aria-label': 'Across' }, this.buttons));
    this.note = make('p', { class: 'quiet' });
    this.charts = make('div', { class: 'pair' });
    body.append(this.charts, this.note);
    host.append(box);
    this.choose('version');
    live.on('reward', (section) => this.set(section));
  }

  choose(by) {
    this.by = by;
    this.buttons.forEach((button, index) => {
      button.setAttribute('aria-pressed', String(['version', 'time'][index] === by));
    });
    const version = by === 'version';
    const path = version ? 'reward.by_version' : 'reward.windows';
    const chosen = version ? ({ x }) => (location.hash = toVersion(x)) : null;
    const across = { x: version ? 'number' : 'time', xName: 'version', chosen, height: 220 };
    replace(this.charts);
    this.share = new Lines(this.part('satisfied answers', `${path}.share`), {
      label: `Share of satisfied answers by ${by}`,
      series: [{ key: 'share', name: 'satisfied' }],
      y: { say: percent, low: 0, high: 1 },
      ...across,
    });
    this.reward = new Lines(this.part('mean reward', `${path}.reward`), {
      label: `Mean reward by ${by}`,
      series: [{ key: 'reward', name: 'reward' }],
      y: { say: number },
      ...across,
    });
    if (this.last) this.set(this.last);
  }

  part(name, hint) {
    const box = make('figure', {}, make('figcaption', {}, word(name, hint)));
    this.charts.append(box);
    return box;
  }

  set(section) {
    this.last = section;
    const rows = this.by === 'version' ? section.by_version : section.windows;
    const points = rows.map((row) => ({
      x: this.by === 'version' ? row.version : row.start_ms,
      share: { value: row.share, low: row.share_low, high: row.share_high },
      reward: { value: row.reward, low: row.reward_low, high: row.reward_high },
      note: count(row.answers, 'answer'),
    }));
    this.share.set(points);
    this.reward.set(points);
    const silent = `${count(section.unrewarded, 'answer')} closed without a reward`;
    write(this.note, `Bands are 95 % intervals. ${silent}.`);
  }
}

const WAYS = {
  joined: 'joined to its answer',
  trained: 'trained into a version',
  served: 'served by an engine',
};

export class Way {
  constructor(host, live) {
    const { box, body } = panel('From feedback to weights', 'way', { hint: 'latency' });
    host.append(box);
    const chart = make('figure', {}, make('figcaption', {}, word('seconds to served', 'latency.recent.seconds')));
    body.append(chart);
    this.chart = new Lines(chart, {
      label: 'Seconds from feedback to the weights that serve it',
      series: [{ key: 'seconds', name: 'took' }],
      y: { say: seconds, low: 0, high: 0 },
      dots: true,
      height: 130,
    });
    this.most = 1;
    this.table = new Table(
      body,
      [
        { name: 'stage', hint: 'latency.stages.name', text: ({ name }) => WAYS[name] ?? name },
        { name: 'p50', hint: 'latency.stages.p50_s', number: true, text: (row) => seconds(row.p50_s) },
        { name: 'p95', hint: 'latency.stages.p95_s', number: true, text: (row) => seconds(row.p95_s) },
        { name: '', put: (cell, row) => replace(cell, bar((row.p50_s ?? 0) / this.most)) },
      ],
      ({ name }) => name,
      { label: 'Stages from feedback to served weights' },
    );
    live.on('latency', (section) => this.set(section));
  }

  set({ p50_s, p95_s, stages, recent }) {
    this.chart.set(
      recent.map((one) => ({ x: one.time_ms, seconds: one.seconds, note: `version ${one.version}` })),
    );
    this.most = Math.max(p50_s ?? 0, ...stages.map((stage) => stage.p50_s ?? 0)) || 1;
    const all = { name: 'all the way', p50_s, p95_s };
    this.table.set(p50_s === null ? [] : [...stages, all]);
  }
}
