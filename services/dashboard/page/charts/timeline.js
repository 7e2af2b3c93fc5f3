// Versions in their order, in lanes: a bar for each version in each lane, with a scale of its own.
// Quiet nights take no room; the times under the bars say when it was.

import { draw } from '../dom.js';
import { clock } from '../words.js';
import { Plot, empty, label } from './plot.js';
import { extent, linear } from './scale.js';

const LEFT = 92;
const RIGHT = 14;
const BOTTOM = 34;
const LABEL = 64;
const GAP = 8;

export class Timeline extends Plot {
  /** `lanes`: {key, name, say: value to text, beside: a kind that is beyond the scale where it is
   *  larger than all others}. A mark of the data has `x` (ms), `name`, `short`, a number or
   *  null for each key, `kind` (its class) and `note`. `chosen(mark)` hears a click. */
  constructor(host, options) {
    super(host, options);
    this.lanes = options.lanes;
    this.chosen = options.chosen;
    this.marks = [];
  }

  set(marks) {
    this.marks = marks;
    if (this.cursor !== null && this.cursor >= marks.length) this.cursor = null;
    this.redraw();
  }

  length() {
    return this.marks.length;
  }

  at(x) {
    if (!this.marks.length || !this.across) return null;
    const index = Math.round(this.across.back(x));
    return Math.max(0, Math.min(this.marks.length - 1, index));
  }

  paint(svg) {
    const { width, height } = this;
    if (!this.marks.length) {
      empty(svg, width, height, 'no version yet');
      this.across = null;
      return;
    }
    const last = this.marks.length - 1;
    const room = (width - LEFT - RIGHT) / (last + 1);
    this.across = linear(0, last, LEFT + room / 2, width - RIGHT - room / 2);
    const thick = Math.max(2, Math.min(12, room * 0.6));
    const tall = (height - BOTTOM) / this.lanes.length;
    if (this.cursor !== null) {
      const x = this.across(this.cursor);
      svg.append(draw('line', { class: 'cursor', x1: x, x2: x, y1: 0, y2: height - BOTTOM }));
    }
    this.lanes.forEach((lane, index) => this.lane(svg, lane, index, index * tall, tall, thick));
    const every = Math.max(1, Math.ceil(LABEL / room));
    for (let index = last; index >= 0; index -= every) {
      const { short, x } = this.marks[index];
      const place = Math.min(this.across(index), width - LABEL / 2);
      svg.append(label(place, height - 19, short, { 'text-anchor': 'middle', class: 'axis name' }));
      svg.append(label(place, height - 5, clock(x), { 'text-anchor': 'middle' }));
    }
  }

  lane(svg, lane, index, top, tall, thick) {
    const base = top + tall - GAP;
    const values = (marks) => extent(marks.map((mark) => mark[lane.key]))?.[1] ?? 0;
    const most = values(this.marks.filter(({ kind }) => kind !== lane.beside)) || values(this.marks);
    svg.append(
      draw('line', { class: 'rule', x1: LEFT, x2: this.width - RIGHT, y1: base, y2: base }),
      label(0, base - tall / 2 + GAP, lane.name, { class: 'axis name' }),
      label(0, base - tall / 2 + GAP + 13, most > 0 ? `to ${lane.say(most)}` : ''),
    );
    this.marks.forEach((mark, place) => {
      const value = mark[lane.key];
      const x = this.across(place);
      if (!value || most <= 0) {
        svg.append(draw('circle', { class: 'dot none', cx: x, cy: base, r: 1.5 }));
        return;
      }
      const size = Math.max(2, Math.min(1, value / most) * (tall - GAP * 2));
      const kinds = ['bar', `lane-${index}`, mark.kind, value > most && 'beyond'];
      const kind = [...kinds, place === this.cursor && 'at'].filter(Boolean).join(' ');
      const shape = { x: x - thick / 2, y: base - size, width: thick, height: size };
      svg.append(draw('rect', { class: kind, ...shape, rx: Math.min(1.5, thick / 4) }));
    });
  }

  words(cursor) {
    const mark = cursor === null ? this.marks.at(-1) : this.marks[cursor];
    if (!mark) return 'no version yet';
    const parts = this.lanes.map(({ key, name, say }) => `${name} ${say(mark[key])}`);
    return [mark.name, clock(mark.x), ...parts, mark.note].filter(Boolean).join(' \u00b7 ');
  }

  choose(cursor) {
    const mark = this.marks[cursor];
    if (mark && this.chosen) this.chosen(mark);
  }
}
