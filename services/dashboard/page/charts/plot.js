// What every chart has in common: a frame as wide as its host, drawn again when that or the data
// changes; a cursor that mouse, touch and the arrow keys move; a line of words under it that says
// what is there. Text is always beside the picture, so nothing is said by colour alone.

import { draw, make, replace, write } from '../dom.js';

export class Plot {
  /** `label`: what the chart shows, for who cannot see it. `height` in px. */
  constructor(host, { label, height = 160 }) {
    this.host = host;
    this.label = label;
    this.height = height;
    this.cursor = null;
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
      this.frame.setAttribute('aria-label', `${this.label}: ${this.summary()}`);
      write(this.readout, this.words(this.cursor));
    });
  }

  point(event) {
    const box = this.frame.getBoundingClientRect();
    this.move(this.at(event.clientX - box.left, event.clientY - box.top));
  }

  move(cursor) {
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.redraw();
  }

  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.length() - 1;
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

  // What a chart says of itself.

  /** How many places the cursor has. */
  length() {
    return 0;
  }

  /** The place of the cursor at a point of the frame. */
  at() {
    return null;
  }

  paint() {}

  /** The newest, in words. */
  summary() {
    return this.words(null);
  }

  /** What is at the cursor; of null the newest. */
  words() {
    return '';
  }

  /** A place was chosen: a click, or Enter. */
  choose() {}
}

/** A line of text in a chart. */
export function label(x, y, text, more = {}) {
  return draw('text', { x, y, class: 'axis', ...more }, text);
}

/** Said in the middle of a chart that has nothing to show. */
export function empty(svg, width, height, text) {
  svg.append(label(width / 2, height / 2, text, { 'text-anchor': 'middle', class: 'axis empty' }));
}
