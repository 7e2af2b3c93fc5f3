// The conservation table: what came in is what became of it and what is on its way.

import { draw, keep, make, mark, replace, write } from '../dom.js';
import { word } from '../hints.js';
import { panel } from '../panel.js';
import { ago, moment, plain, whole } from '../words.js';

const LATER = ['in_flight', 'missing'];
const GOOD = new Set(['joined', 'trained', 'corrected', 'closed', 'compensated', 'applied']);

export class Account {
  constructor(host, live) {
    this.live = live;
    const { box, body, side } = panel('Every record has one outcome', 'account', { hint: 'account' });
    this.lamp = make('span', { class: 'badge', tabindex: 0, 'data-hint': 'account.balanced' });
    side.append(this.lamp);
    this.lines = make('div', { class: 'lines' });
    this.note = make('p', { class: 'quiet' });
    body.append(this.lines, this.note);
    host.append(box);
    live.on('account', (section) => this.set(section));
  }

  set(section) {
    write(this.lamp, section.balanced ? 'balances' : 'does not add up');
    mark(this.lamp, 'data-state', section.balanced ? 'good' : 'bad');
    keep(
      this.lines,
      section.lines,
      ({ name }) => name,
      (line) => this.line(line),
      (element, line) => this.change(element, line),
    );
    const since = section.since_ms ? `Counted since ${moment(section.since_ms)}. ` : '';
    const again = section.repeated ? `${whole(section.repeated)} receipts said again. ` : '';
    const before = section.before ? `${whole(section.before)} receipts of earlier records. ` : '';
    write(this.note, `${since}${again}${before}tailrace audit recounts the whole log.`);
  }

  line({ name }) {
    const total = make('strong');
    const sum = make('ul', { class: 'sum' });
    const stack = make('div', { class: 'stack', 'aria-hidden': 'true' });
    const late = make('span', { class: 'quiet late' });
    const box = make(
      'div',
      { class: 'account-line' },
      make('p', { class: 'total' }, total, ' ', word(plain(name), 'account.lines.records'), ' in =', late),
      stack,
      sum,
    );
    box.parts = { total, sum, stack, late };
    return box;
  }

  change(box, line) {
    const { total, sum, stack, late } = box.parts;
    write(total, whole(line.records));
    const old = line.oldest_ms ? ` oldest in flight ${ago(line.oldest_ms, this.live.now())}` : '';
    write(late, old);
    const outcomes = Object.entries(line.outcomes).sort(([, a], [, b]) => b - a);
    const terms = [...outcomes, ['in_flight', line.in_flight], ['missing', line.missing]];
    if (line.unaccounted) terms.push(['unaccounted', line.unaccounted]);
    keep(
      sum,
      terms,
      ([name]) => name,
      ([name]) => {
        const hint = outcomes.some(([one]) => one === name) ? 'outcomes' : name;
        return make(
          'li',
          {},
          make('i', { class: `swatch ${tone(name)}` }),
          make('b'),
          ' ',
          word(plain(name), `account.lines.${hint}`),
        );
      },
      (element, [name, many]) => {
        write(element.children[1], whole(many));
        mark(element, 'data-state', many && (name === 'missing' || name === 'unaccounted') ? 'bad' : null);
      },
    );
    replace(stack, stacked(terms, line.records));
  }
}

function tone(name) {
  if (name === 'missing' || name === 'unaccounted') return 'tone-bad';
  if (LATER.includes(name)) return 'tone-flight';
  return GOOD.has(name) ? 'tone-good' : 'tone-other';
}

function stacked(terms, all) {
  const svg = draw('svg', { viewBox: '0 0 1000 10', preserveAspectRatio: 'none' });
  let at = 0;
  for (const [name, many] of terms) {
    const width = all > 0 ? (Math.max(0, many) / all) * 1000 : 0;
    if (width > 0) {
      const room = Math.max(1, width - 2);
      svg.append(draw('rect', { class: tone(name), x: at, y: 0, width: room, height: 10 }));
    }
    at += width;
  }
  return svg;
}
