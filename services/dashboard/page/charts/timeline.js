// Versions in their order, in lanes: a bar for each version in each lane, with a scale of its own.
// Quiet nights take no room; the times under the bars say when it was.

import { draw } from '../dom.js';
import { clock } from '../words.js';
import { Plot, label } from './plot.js';
import { extent, linear } from './scale.js';

const LEFT = 92;
const RIGHT = 14;
const BOTTOM = 34;
const LABEL = 64;
const GAP = 8;

export class Timeline extends Plot {
  /** `lanes`: {key, name, say: value to text, beside: a kind that is beyond the scale where it is
   *  larger than all others}. A point of the data has `x` (ms), `name`, `short`, a number or
   *  null for each key, `kind` (its class) and `note`. */
  constructor(host, options) {
    super(host, options);
    this.lanes = options.lanes;
  }

  at(x) {
    const index = Math.round(this.across.back(x));
    return Math.max(0, Math.min(this.points.length - 1, index));
  }

  paint(svg) {
    const { width, height } = this;
    if (!this.points.length) {
      this.empty(svg);
      return;
    }
    const last = this.points.length - 1;
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
      const { short, x } = this.points[index];
      const place = Math.min(this.across(index), width - LABEL / 2);
      svg.append(label(place, height - 19, short, { 'text-anchor': 'middle', class: 'axis name' }));
      svg.append(label(place, height - 5, clock(x), { 'text-anchor': 'middle' }));
    }
  }

  lane(svg, lane, index, top, tall, thick) {
    const base = top + tall - GAP;
    const values = (points) => extent(points.map((point) => point[lane.key]))?.[1] ?? 0;
    const most = values(this.points.filter(({ kind }) => kind !== lane.beside)) || values(this.points);
    svg.append(
      draw('line', { class: 'rule', x1: LEFT, x2: this.width - RIGHT, y1: base, y2: base }),
      label(0, base - tall / 2 + GAP, lane.name, { class: 'axis name' }),
      label(0, base - tall / 2 + GAP + 13, most > 0 ? `to ${lane.say(most)}` : ''),
    );
    this.points.forEach((point, place) => {
      const value = point[lane.key];
      const x = this.across(place);
      if (!value || most <= 0) {
        svg.append(draw('circle', { class: 'dot none', cx: x, cy: base, r: 1.5 }));
        return;
      }
      const size = Math.max(2, Math.min(1, value / most) * (tall - GAP * 2));
      const kinds = ['bar', `lane-${index}`, point.kind, value > most && 'beyond'];
      const kind = [...kinds, place === this.cursor && 'at'].filter(Boolean).join(' ');
      const shape = { x: x - thick / 2, y: base - size, width: thick, height: size };
      svg.append(draw('rect', { class: kind, ...shape, rx: Math.min(1.5, thick / 4) }));
    });
  }

  words({ name, x, note, ...values }) {
    const parts = this.lanes.map((lane) => `${lane.name} ${lane.say(values[lane.key])}`);
    return [name, clock(x), ...parts, note].filter(Boolean).join(' \u00b7 ');
  }
}
