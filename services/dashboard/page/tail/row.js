// One record: a line that opens to all of it.

import { copier, make, said } from '../dom.js';
import { clock, plain } from '../words.js';

const LINE = 240;
const SHOWN = 6000;
const FIRST = ['outcome', 'state', 'stage', 'metric', 'kind', 'reward', 'version', 'interaction_id'];

export class Row {
  constructor(record) {
    this.record = record;
    const wrong = record.invalid && refusal(record.invalid);
    this.details = make(
      'details',
      {},
      make(
        'summary',
        {},
        make('span', { class: 'time' }, clock(record.time)),
        make('span', { class: 'place' }, `${record.partition}:${record.offset}`),
        make('span', { class: wrong ? 'brief wrong' : 'brief' }, wrong ?? line(record)),
      ),
    );
    this.details.addEventListener('toggle', () => this.open());
    this.box = make('li', {}, this.details);
  }

  open() {
    if (!this.details.open || this.details.children.length > 1) return;
    const text = JSON.stringify(this.record, null, 1);
    this.details.append(
      make(
        'div',
        { class: 'whole' },
        copier(() => text, 'Copy as JSON'),
        this.record.cut ? make('span', { class: 'quiet' }, ' its long texts were cut by the dashboard') : null,
        make('pre', {}, said(text, SHOWN)),
      ),
    );
  }
}

/** Why a record cannot be read; a page that masks has no detail. */
function refusal({ reason, detail }) {
  return detail === null ? plain(reason) : `${plain(reason)}: ${detail}`;
}

/** The record in one line: what tells most first. */
function line({ key, event, bytes }) {
  if (!event) return `${key ?? ''} ${bytes ?? ''}`.slice(0, LINE);
  const first = FIRST.filter((name) => known(event[name])).map((name) => `${name} ${event[name]}`);
  const { messages, message, text } = event.content ?? {};
  if (messages ?? message ?? text) first.push(messages ?? message ?? text);
  const rest = Object.entries(event)
    .filter(([name, value]) => !FIRST.includes(name) && name !== 'content' && known(value) && !name.endsWith('_time_ms'))
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`.slice(0, 120));
  return [...first, ...rest].join(' \u00b7 ').slice(0, LINE);
}

function known(value) {
  if (value === null || value === undefined || value === '') return false;
  return typeof value !== 'object' || Object.keys(value).length > 0;
}
