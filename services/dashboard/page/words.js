// Numbers, times and sizes as people read them. Pure; null is a dash.

export const NONE = '\u2013';

/** Up to `digits` digits after the point; large numbers with groups. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? '\u221e' : '\u2212\u221e';
  const size = Math.abs(value);
  const least = 10 ** -digits;
  if (size > 0 && size < least / 2) return value > 0 ? `<${least}` : `>\u2212${least}`;
  return value
    .toLocaleString('en', { maximumFractionDigits: size >= 1000 ? 0 : digits })
    .replace('-', '\u2212');
}

export const whole = (value) => number(value, 0);

export function percent(value, digits = 0) {
  return value === null || value === undefined ? NONE : `${number(value * 100, digits)}\u00a0%`;
}

/** A span of time. */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  if (size > 0 && size < 1) return `${number(value * 1000, 0)}\u00a0ms`;
  if (size < 120) return `${number(value, size < 10 ? 1 : 0)}\u00a0s`;
  if (size < 7200) return `${number(value / 60, 0)}\u00a0min`;
  if (size < 172_800) return `${number(value / 3600, 1)}\u00a0h`;
  return `${number(value / 86_400, 1)}\u00a0d`;
}

export const millis = (value) =>
  value === null || value === undefined ? NONE : seconds(value / 1000);

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${number(size, unit === 0 || size >= 100 ? 0 : 1)}\u00a0${units[unit]}`;
}

const two = (value) => String(value).padStart(2, '0');

/** Time of day, here. */
export function clock(time_ms) {
  if (!time_ms) return NONE;
  const at = new Date(time_ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Day and time of day, here. */
export function moment(time_ms) {
  if (!time_ms) return NONE;
  const at = new Date(time_ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${clock(time_ms)}`;
}

/** How long ago, of something the log says. */
export function ago(time_ms, now_ms = Date.now()) {
  if (!time_ms) return NONE;
  const since_s = (now_ms - time_ms) / 1000;
  return since_s < 1 ? 'now' : `${seconds(Math.max(1, Math.floor(since_s)))} ago`;
}

/** One of something, or so many. */
export function count(value, one, many = `${one}s`) {
  return `${whole(value)} ${value === 1 ? one : many}`;
}

/** A name of the code for people. */
export const plain = (name) => String(name).replaceAll('_', ' ');
