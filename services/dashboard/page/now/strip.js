// The row of lamps on top: the eight things that say whether all is well.

import { make, mark, write } from '../dom.js';
import { NONE, ago, number, percent, plain, seconds, whole } from '../words.js';

export class Strip {
  constructor(host, live) {
    this.live = live;
    this.row = make('div', { class: 'strip' });
    this.notice = make('p', { class: 'notice', role: 'status', hidden: true });
    host.append(this.notice, this.row);
    this.share = this.lamp('satisfied', 'reward.now.share');
    this.reward = this.lamp('reward', 'reward.now.reward');
    this.serving = this.lamp('serving', 'versions.served');
    this.way = this.lamp('feedback to served', 'latency.p50_s');
    this.answers = this.lamp('answers', 'traffic.topics.per_s');
    this.balance = this.lamp('account', 'account.balanced');
    this.alarms = this.lamp('alarms', 'alarms.open');
    this.self = this.lamp('the log', 'traffic.behind');
    live.on('reward', (section) => this.people(section));
    live.on('versions', (section) => this.versions(section));
    live.on('latency', (section) => this.latency(section));
    live.on('account', (section) => this.account(section));
    live.on('alarms', (section) => this.alarm(section));
    live.on('traffic', (section) => this.traffic(section));
  }

  lamp(name, hint) {
    const value = make('strong', {}, NONE);
    const more = make('span', { class: 'more' });
    const box = make(
      'div',
      { class: 'lamp', tabindex: 0, 'data-hint': hint, 'data-name': name },
      make('span', { class: 'name' }, name),
      value,
      more,
    );
    this.row.append(box);
    return (text, note = '', state = null) => {
      write(value, text);
      write(more, note);
      mark(box, 'data-state', state);
    };
  }

  people({ now }) {
    const range = (low, high, say) => (low === null ? '' : `${say(low)} to ${say(high)}`);
    this.share(percent(now.share), range(now.share_low, now.share_high, percent));
    this.reward(number(now.reward), range(now.reward_low, now.reward_high, number));
  }

  versions({ served, head, published, timeline }) {
    const behind = head !== null && served !== null && head !== served;
    const known = timeline.find(({ version }) => version === served);
    const who = known?.serving.length ? `on ${known.serving.join(', ')}` : '';
    const note = behind ? `newest is ${head}` : who || `${whole(published)} published`;
    this.serving(served === null ? NONE : `version ${served}`, note);
  }

  latency({ p50_s, p95_s, samples }) {
    this.way(seconds(p50_s), samples ? `95 % within ${seconds(p95_s)}` : 'none seen yet');
  }

  account({ balanced, lines }) {
    const waiting = lines.reduce((sum, line) => sum + line.in_flight, 0);
    const wrong = lines.reduce((sum, line) => sum + line.missing + Math.abs(line.unaccounted), 0);
    if (balanced) this.balance('balances', `${whole(waiting)} in flight`, 'good');
    else this.balance('does not add up', `${whole(wrong)} missing`, 'bad');
  }

  alarm({ open, recent }) {
    const newest = open[0];
    if (newest) this.alarms(`${open.length} open`, plain(newest.stream), 'bad');
    else this.alarms('none open', recent[0] ? `last ${ago(recent[0].time_ms, this.live.now())}` : '', 'good');
  }

  traffic({ topics, behind, caught_up, broker }) {
    const outputs = topics.find(({ topic }) => topic === 'outputs');
    const sum = topics.reduce((all, { per_s }) => all + per_s, 0);
    this.answers(`${number(outputs?.per_s ?? 0, 1)} /s`, `${number(sum, 1)} records/s in all`);
    const state = broker ? 'bad' : caught_up ? 'good' : 'warn';
    this.self(broker ? 'away' : caught_up ? 'read' : 'catching up', `${whole(behind)} to read`, state);
    const words = broker
      ? `The broker does not answer, so this picture stands still: ${broker}`
      : caught_up
        ? ''
        : `The log is being read from its beginning: ${whole(behind)} records to go.`;
    this.notice.hidden = !words;
    write(this.notice, words);
  }
}
