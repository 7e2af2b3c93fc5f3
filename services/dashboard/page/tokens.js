// An answer's tokens, each in the colour of the weight version that sampled it. The colours repeat
// after eight versions; the legend and every token's hint say the number.

import { make } from './dom.js';
import { count, number, percent } from './words.js';
import { toVersion } from './route.js';

const COLOURS = 8;
const SHOWN = 4000;

/** The class of a version's colour. */
export const colour = (version) =>
  version === null || version === undefined ? 'v-none' : `v-${version % COLOURS}`;

/** A version's number in its colour, leading to what it is. */
export function chip(version) {
  const text = version === null || version === undefined ? 'version unknown' : `version ${version}`;
  if (version === null || version === undefined) {
    return make('span', { class: 'chip v-none' }, text);
  }
  return make('a', { class: `chip ${colour(version)}`, href: toVersion(version) }, text);
}

/** Tokens {text, version, logprob, id} as text in colours; masked ones as dots. */
export function coloured(tokens) {
  const shown = tokens.slice(0, SHOWN);
  const parts = shown.map((token) =>
    make(
      'span',
      {
        class: `token ${colour(token.version)} ${token.ends ? 'ends' : ''}`,
        'data-name': spelled(token),
        'data-say': told(token),
      },
      token.ends ? '\u00a0' : (token.text ?? (token.id === null ? '\u2022' : `[${token.id}]`)),
    ),
  );
  const rest = tokens.length - shown.length;
  return make(
    'p',
    { class: 'tokens' },
    parts,
    rest > 0 ? make('span', { class: 'quiet' }, ` and ${count(rest, 'token')} more`) : null,
  );
}

/** The versions of tokens, each with how many of them it sampled. */
export function legend(tokens) {
  const many = new Map();
  for (const { version } of tokens) many.set(version, (many.get(version) ?? 0) + 1);
  return make(
    'ul',
    { class: 'legend', 'aria-label': 'Versions of the tokens' },
    [...many].map(([version, some]) => make('li', {}, chip(version), ` ${count(some, 'token')}`)),
  );
}

/** Tokens as they were streamed, with the versions of their spans. */
export function spanned(tokens, spans) {
  const versions = new Array(tokens.length).fill(null);
  for (const { version, start, end } of spans) versions.fill(version, start, end);
  return tokens.map((token, index) => ({ ...token, version: versions[index] }));
}

const spelled = ({ text, id }) => (text?.trim() ? `\u201c${text.trim()}\u201d` : id === null ? 'token' : `token ${id ?? ''}`);

function told({ version, logprob, id }) {
  const lines = [version === null || version === undefined ? 'version unknown' : `sampled by version ${version}`];
  if (logprob !== null && logprob !== undefined) {
    lines.push(`logprob ${number(logprob, 3)}, which is ${percent(Math.exp(logprob), 1)}`);
  }
  if (id !== null && id !== undefined) lines.push(`token id ${id}`);
  return lines.join('\n');
}
