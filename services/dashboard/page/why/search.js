// Finding interactions: by id, words, session, user, tag and time.

import { make } from '../dom.js';
import { toInteraction } from '../route.js';
import { chip } from '../tokens.js';
import { ago, count, moment, number, plain, whole } from '../words.js';

const FIELDS = [
  ['user', 'user', 'anna'],
  ['session', 'session', 'chat-1'],
  ['tag', 'tag', 'team=red'],
  ['since', 'since', '2h'],
  ['until', 'until', '10m'],
];
const CUT = 160;

export class Search {
  /** `go(query)` hears what is to be searched. */
  constructor(go) {
    this.box = make('input', { type: 'search', id: 'why-q', placeholder: 'An id, a version, or words', autocomplete: 'off' });
    this.inputs = Object.fromEntries(
      FIELDS.map(([name, , example]) => [
        name,
        make('input', { type: 'text', placeholder: example, autocomplete: 'off', size: 10 }),
      ]),
    );
    this.form = make(
      'form',
      { class: 'search', role: 'search' },
      make('label', { class: 'wide', for: 'why-q' }, make('span', {}, 'look for'), this.box),
      FIELDS.map(([name, words]) => make('label', {}, make('span', {}, words), this.inputs[name])),
      make('button', { type: 'submit', class: 'main' }, 'Search'),
    );
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      const query = { q: this.box.value.trim() };
      for (const [name, input] of Object.entries(this.inputs)) query[name] = input.value.trim();
      go(query);
    });
  }

  fill(query) {
    this.box.value = query.q ?? '';
    for (const [name, input] of Object.entries(this.inputs)) input.value = query[name] ?? '';
  }

  words({ found, more, since_ms }) {
    const back = since_ms ? ` The index goes back to ${moment(since_ms)}.` : '';
    if (!found.length) return `Nothing found.${back}`;
    return `${count(found.length, 'interaction')}, newest first${more ? '; there are more' : ''}.${back}`;
  }

  /** `masked`: the page leaves out what people wrote. */
  results({ found }, masked) {
    return make('ul', { class: 'results' }, found.map((one) => result(one, masked)));
  }
}

function result(one, masked) {
  const facts = [
    ago(one.time_ms),
    one.session_id,
    one.user && `user ${one.user}`,
    one.task && `task ${one.task}`,
    ...Object.entries(one.tags ?? {}).map(([name, value]) => `${name}=${value}`),
  ];
  const state = [
    one.feedback ? `spoken of ${one.feedback === 1 ? 'once' : `${whole(one.feedback)} times`}` : 'nobody spoke of it',
    one.reward === null ? null : `reward ${number(one.reward)}`,
    one.outcome ? plain(one.outcome) : 'not decided yet',
  ];
  return make(
    'li',
    {},
    make('a', { href: toInteraction(one.interaction_id) }, cut(one.asked) || one.interaction_id),
    make('p', {}, cut(one.answered) || make('span', { class: 'quiet' }, masked ? 'its content is left out' : 'no content')),
    make(
      'p',
      { class: 'quiet' },
      (one.versions ?? []).map((version) => [chip(version), ' ']),
      [...facts, ...state].filter(Boolean).join(' \u00b7 '),
    ),
  );
}

function cut(text) {
  if (!text) return '';
  return text.length > CUT ? `${text.slice(0, CUT)}\u2026` : text;
}
