// From values to places on a chart, and round numbers to write beside it. Pure.

/** A linear scale. A range that is empty gets some room. */
export function linear(low, high, from, to) {
  const room = high === low ? Math.max(Math.abs(high) * 0.1, 0.5) : 0;
  const [a, b] = [low - room, high + room];
  const scale = (value) => from + ((value - a) / (b - a)) * (to - from);
  scale.low = a;
  scale.high = b;
  scale.back = (place) => a + ((place - from) / (to - from)) * (b - a);
  return scale;
}

/** About `count` round numbers within a scale. */
export function ticks(scale, count, { integers = false } = {}) {
  const rough = (scale.high - scale.low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const steps = [1, 2, 5, 10].map((factor) => factor * power);
  let step = steps.find((one) => one >= rough) ?? steps[3];
  if (integers) step = Math.max(1, Math.round(step));
  const found = [];
  for (let k = Math.ceil(scale.low / step - 1e-9); k * step <= scale.high + step * 1e-9; k += 1) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

const STEPS_S = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400];

/** About `count` round times (milliseconds) within a scale. */
export function times(scale, count) {
  const rough_s = (scale.high - scale.low) / 1000 / Math.max(1, count);
  const day_s = 86_400;
  const step_s = STEPS_S.find((one) => one >= rough_s) ?? Math.ceil(rough_s / day_s) * day_s;
  const shift_ms = new Date().getTimezoneOffset() * 60_000;
  const step = step_s * 1000;
  const found = [];
  for (
    let at = Math.ceil((scale.low - shift_ms) / step) * step + shift_ms;
    at <= scale.high;
    at += step
  ) {
    found.push(at);
  }
  return found;
}

/** The least and the most of what is there; null where nothing is. */
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || Number.isNaN(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** The index of the value of an ordered list that is nearest to `wanted`. */
export function nearest(ordered, wanted) {
  let best = 0;
  for (let index = 1; index < ordered.length; index += 1) {
    if (Math.abs(ordered[index] - wanted) <= Math.abs(ordered[best] - wanted)) best = index;
  }
  return best;
}
