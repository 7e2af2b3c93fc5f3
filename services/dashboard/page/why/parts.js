// Pieces that both chains are made of: facts, places on the log, figures.

import { make, said } from '../dom.js';
import { word } from '../hints.js';
import { address } from '../route.js';
import { NONE, ago, millis, moment, number, plain } from '../words.js';

/** A list of facts: [name, value or node, hint]; those that are null are left out. */
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return make(
    'dl',
    { class: 'facts' },
    rows.map(([name, value, say]) =>
      make('div', {}, make('dt', {}, say ? word(name, null, say) : name), make('dd', {}, value)),
    ),
  );
}

/** Where a record lies, and when it came there. */
export function where(place) {
  const words = `${place.topic} ${place.partition}:${place.offset}`;
  return make(
    'p',
    { class: 'where quiet' },
    make('a', { href: address('tail', [place.topic]) }, words),
    ` \u00b7 ${moment(place.time_ms)}, ${ago(place.time_ms)}`,
  );
}

/** Figures by name, small and many. */
export function figures(known) {
  const rows = Object.entries(known ?? {});
  if (!rows.length) return null;
  return make(
    'details',
    {},
    make('summary', {}, `${rows.length} figures`),
    facts(rows.map(([name, value]) => [plain(name), number(value, 4)])),
  );
}

/** A table of rows that do not change: `head` texts, `rows` of texts and nodes. */
export function grid(label, head, rows) {
  return make(
    'div',
    { class: 'scroll' },
    make(
      'table',
      { 'aria-label': label },
      make('thead', {}, make('tr', {}, head.map((text) => make('th', { scope: 'col' }, text)))),
      make('tbody', {}, rows.map((row) => make('tr', {}, row.map((cell) => make('td', {}, cell ?? NONE))))),
    ),
  );
}

/** A chat message, or a plain text, of whatever shape. `masked`: the page leaves them out. */
export function message(given, masked) {
  if (given === null || given === undefined) {
    const words = masked ? 'This page leaves out what people wrote and were answered.' : 'The record has no content.';
    return make('p', { class: 'quiet' }, words);
  }
  if (typeof given === 'string') return make('div', { class: 'message' }, said(given));
  const { role, content, ...rest } = given;
  const text = typeof content === 'string' ? content : JSON.stringify(content ?? given, null, 1);
  const others = Object.fromEntries(Object.entries(rest).filter(([, value]) => value));
  return make(
    'div',
    { class: 'message' },
    make('span', { class: 'role' }, role ?? ''),
    said(text),
    Object.keys(others).length ? said(JSON.stringify(others)) : null,
  );
}

/** Who serves a version: a row each. */
export function serving(engines) {
  if (!engines.length) return make('p', { class: 'quiet' }, 'No engine has it.');
  return grid(
    'Engines and this version',
    ['engine', 'serves it', 'since', 'apply', 'pause', 'now'],
    engines.map((one) => [
      one.engine,
      one.refused ? make('span', { class: 'bad' }, `refused: ${one.refused}`) : one.serves ? 'yes' : 'no',
      one.since_ms ? moment(one.since_ms) : null,
      one.apply_ms === null ? null : millis(one.apply_ms),
      one.pause_ms === null ? null : millis(one.pause_ms),
      `version ${one.now.version}${one.now.stale ? ', not heard for a minute' : ''}`,
    ]),
  );
}

/** An advantage as a bar to the left or right of nothing, with its number. */
export const BASES = {
  ledger: 'The ledger of the step says it.',
  revision: 'Exact: the reward less the one with which an earlier revision had been trained.',
  demonstration: 'Exact: a demonstration counts 1, it is to be imitated.',
  pair: 'Exact: 1 for the answer that was preferred, -1 for the other.',
  step: 'The reward less the mean reward of the other answers of the step, in place of the baseline.',
};
