// Lines with bands of uncertainty, over time or over versions.

import { draw, make } from '../dom.js';
import { clock, number } from '../words.js';
import { Plot, label } from './plot.js';
import { extent, linear, nearest, ticks, times } from './scale.js';

const LEFT = 44;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 22;

export class Lines extends Plot {
  /** `series`: {key, name} of each line, in the order of its colour; a point of the data has
   *  `x`, and for each key a number or {value, low, high}, or null. `x`: `time` (ms) or `number`.
   *  `y`: {say: value to text, low, high: limits that are always in view}. `xName` before a number
   *  in words; `dots`: no line between them. */
  constructor(host, options) {
    super(host, options);
    this.series = options.series;
    this.x = options.x ?? 'time';
    this.y = { say: number, ...options.y };
    this.xName = options.xName ?? '';
    this.dots = options.dots ?? false;
    const key = make(
      'ul',
      { class: 'key', 'aria-hidden': 'true' },
      this.series.map(({ name }, index) =>
        make('li', {}, make('i', { class: `swatch line-${index}` }), name),
      ),
    );
    if (this.series.length > 1) host.prepend(key);
  }

  at(x) {
    return nearest(
      this.points.map((point) => point.x),
      this.across.back(x),
    );
  }

  paint(svg) {
    const { width, height } = this;
    const found = this.points.flatMap((point) =>
      this.series.flatMap(({ key }) => {
        const one = read(point[key]);
        return one ? [one.value, one.low, one.high] : [];
      }),
    );
    const reach = extent([...found, ...(found.length ? [this.y.low, this.y.high] : [])]);
    const wide = extent(this.points.map((point) => point.x));
    if (!reach || !wide) {
      this.empty(svg);
      return;
    }
    this.across = linear(wide[0], wide[1], LEFT, width - RIGHT);
    this.up = linear(reach[0], reach[1], height - BOTTOM, TOP);
    this.axes(svg);
    this.series.forEach(({ key }, index) => this.line(svg, key, index));
    this.pointer(svg);
  }

  axes(svg) {
    const { width, height, across, up } = this;
    for (const value of ticks(up, height / 42)) {
      const y = up(value);
      svg.append(
        draw('line', { class: 'rule', x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        label(LEFT - 6, y + 3.5, this.y.say(value), { 'text-anchor': 'end' }),
      );
    }
    const marks =
      this.x === 'time' ? times(across, width / 130) : ticks(across, width / 70, { integers: true });
    for (const value of marks) {
      const x = across(value);
      if (x < LEFT - 1 || x > width - RIGHT + 1) continue;
      const text = this.x === 'time' ? clock(value).replace(/:00$/, '') : number(value, 0);
      svg.append(label(x, height - 6, text, { 'text-anchor': 'middle' }));
    }
  }

  line(svg, key, index) {
    const { across, up } = this;
    let path = '';
    let open = false;
    const bands = [];
    for (const point of this.points) {
      const one = read(point[key]);
      if (!one) {
        open = false;
        continue;
      }
      const x = across(point.x);
      if (!open) bands.push([]);
      path += `${open ? 'L' : 'M'}${x.toFixed(1)} ${up(one.value).toFixed(1)}`;
      open = true;
      if (one.low !== null && one.high !== null) {
        bands.at(-1).push([x, up(one.low), up(one.high)]);
      }
    }
    for (const band of bands) svg.append(...bandOf(band, index));
    if (!this.dots) svg.append(draw('path', { class: `line line-${index}`, d: path }));
    if (this.dots || this.points.length <= 60) {
      for (const point of this.points) {
        const one = read(point[key]);
        if (one) {
          const place = { cx: across(point.x), cy: up(one.value), r: 2.2 };
          svg.append(draw('circle', { class: `dot line-${index}`, ...place }));
        }
      }
    }
  }

  pointer(svg) {
    const point = this.points[this.cursor];
    if (!point) return;
    const x = this.across(point.x);
    svg.append(draw('line', { class: 'cursor', x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }));
    this.series.forEach(({ key }, index) => {
      const one = read(point[key]);
      if (one) {
        svg.append(draw('circle', { class: `dot line-${index}`, cx: x, cy: this.up(one.value), r: 4 }));
      }
    });
  }

  words(point) {
    const where = this.x === 'time' ? clock(point.x) : `${this.xName} ${number(point.x, 0)}`;
    const parts = this.series.map(({ key, name }) => {
      const one = read(point[key]);
      if (!one) return `${name} not known`;
      const say = this.y.say;
      const range = one.low === null ? '' : ` (${say(one.low)} to ${say(one.high)})`;
      return `${name} ${say(one.value)}${range}`;
    });
    return [where, ...parts, point.note].filter(Boolean).join(' \u00b7 ');
  }
}

/** Of a number, or of one with its interval. */
function read(given) {
  const value = typeof given === 'object' && given !== null ? given.value : given;
  if (value === null || value === undefined || Number.isNaN(value)) return null;
  const { low = null, high = null } = typeof given === 'object' ? given : {};
  return { value, low, high };
}

function bandOf(band, index) {
  if (!band.length) return [];
  if (band.length === 1) {
    // One value alone has no area: its interval is a bar.
    const [x, low, high] = band[0];
    return [draw('line', { class: `whisker line-${index}`, x1: x, x2: x, y1: low, y2: high })];
  }
  const over = band.map(([x, , high]) => `${x.toFixed(1)} ${high.toFixed(1)}`);
  const under = band.map(([x, low]) => `${x.toFixed(1)} ${low.toFixed(1)}`).reverse();
  return [draw('path', { class: `band line-${index}`, d: `M${[...over, ...under].join('L')}Z` })];
}
