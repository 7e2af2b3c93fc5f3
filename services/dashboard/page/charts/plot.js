// What every chart has in common: a frame as wide as its host, drawn again when that or the data
// changes; a cursor that mouse, touch and the arrow keys move; a line of words under it that says
// what is there. Text is always beside the picture, so nothing is said by colour alone.

import { draw, make, replace, write } from '../dom.js';

export class Plot {
  /** `label`: what the chart shows, for who cannot see it. `height` in px. `none`: said while there
   *  is nothing to show. `chosen(point)` hears a click, or Enter. */
  constructor(host, { label, height = 160, none = 'nothing yet', chosen = null }) {
    this.host = host;
    this.label = label;
    this.height = height;
    this.none = none;
    this.chosen = chosen;
    this.points = [];
    this.cursor = null;
    this.across = null;
    this.waiting = false;
    this.frame = make('div', { class: 'plot', tabindex: 0, role: 'img' });
    this.readout = make('p', { class: 'readout' });
    host.append(this.frame, this.readout);
    this.frame.style.height = `${height}px`;
    this.frame.addEventListener('pointermove', (event) => this.point(event));
    this.frame.addEventListener('pointerdown', (event) => this.point(event));
    this.frame.addEventListener('pointerleave', () => this.move(null));
    // Where the arrow keys lead is spoken; what comes by itself is not.
    this.frame.addEventListener('focus', () => this.readout.setAttribute('aria-live', 'polite'));
    this.frame.addEventListener('blur', () => {
      this.readout.removeAttribute('aria-live');
      this.move(null);
    });
    this.frame.addEventListener('keydown', (event) => this.press(event));
    this.frame.addEventListener('click', () => this.choose(this.cursor));
    new ResizeObserver(() => this.redraw()).observe(this.frame);
  }

  /** Show these; the cursor stays while there is something under it. */
  set(points) {
    this.points = points;
    if (this.cursor !== null && this.cursor >= points.length) this.cursor = null;
    this.redraw();
  }

  /** Draw at the next frame, once, and only where it can be seen. */
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.width = this.frame.clientWidth;
      if (this.width < 40) return;
      const svg = draw('svg', {
        width: this.width,
        height: this.height,
        viewBox: `0 0 ${this.width} ${this.height}`,
        'aria-hidden': 'true',
      });
      this.paint(svg);
      replace(this.frame, svg);
      this.frame.setAttribute('aria-label', `${this.label}: ${this.told(null)}`);
      write(this.readout, this.told(this.cursor));
    });
  }

  point(event) {
    const box = this.frame.getBoundingClientRect();
    this.move(this.across && this.at(event.clientX - box.left));
  }

  move(cursor) {
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.redraw();
  }

  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.points.length - 1;
    if (last < 0) return;
    const from = this.cursor ?? last + (event.key === 'ArrowRight' ? 0 : 1);
    const to = {
      ArrowLeft: Math.max(0, from - 1),
      ArrowRight: Math.min(last, from + 1),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === 'Enter' && this.cursor !== null) this.choose(this.cursor);
    if (to === undefined) return;
    event.preventDefault();
    this.move(to);
  }

  /** What is at the cursor, in words; of null the newest. */
  told(cursor) {
    const point = this.points.at(cursor ?? -1);
    return point ? this.words(point) : this.none;
  }

  choose(cursor) {
    const point = this.points[cursor];
    if (point) this.chosen?.(point);
  }

  // What a chart says of itself.

  /** Into an SVG, with `across` as the scale from points to px; or `empty`. */
  paint() {}

  /** The index of the point at so many px from the left. */
  at() {
    return null;
  }

  /** A point in words. */
  words() {
    return '';
  }

  /** Say in the middle that there is nothing to show. */
  empty(svg) {
    this.across = null;
    const place = { 'text-anchor': 'middle', class: 'axis empty' };
    svg.append(label(this.width / 2, this.height / 2, this.none, place));
  }
}

/** A line of text in a chart. */
export function label(x, y, text, more = {}) {
  return draw('text', { x, y, class: 'axis', ...more }, text);
}
