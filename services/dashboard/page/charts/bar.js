// A bar in a table: how much of the most.

import { draw } from '../dom.js';

/** An SVG bar that fills `share` (0 to 1) of its width; `kind` its class. */
export function bar(share, kind = '') {
  const filled = Math.max(0, Math.min(1, share || 0));
  return draw(
    'svg',
    { class: `gauge ${kind}`, viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    draw('rect', { class: 'groove', width: 100, height: 8 }),
    draw('rect', { class: 'fill', width: filled * 100, height: 8 }),
  );
}
