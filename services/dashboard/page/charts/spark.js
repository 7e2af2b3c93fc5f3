// A small line without axes: how a figure went, beside the figure.

import { draw } from '../dom.js';
import { extent, linear } from './scale.js';

/** An SVG of `values` (null: a gap), `width` by `height` px. */
export function spark(values, { width = 120, height = 28 } = {}) {
  const svg = draw('svg', {
    class: 'spark',
    viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  });
  const reach = extent(values);
  if (!reach || values.length < 2) return svg;
  const across = linear(0, values.length - 1, 2, width - 2);
  const up = linear(reach[0], reach[1], height - 3, 3);
  let path = '';
  let open = false;
  values.forEach((value, index) => {
    const known = value !== null && value !== undefined && !Number.isNaN(value);
    if (known) path += `${open ? 'L' : 'M'}${across(index).toFixed(1)} ${up(value).toFixed(1)}`;
    open = known;
  });
  svg.append(draw('path', { class: 'line line-0', d: path, 'vector-effect': 'non-scaling-stroke' }));
  return svg;
}
