// The view *Talk*: a chat with the live model, in which what a person says can be followed.

import { ask } from '../ask.js';
import { make, replace, said, write } from '../dom.js';
import { chip } from '../tokens.js';
import { Answer } from './answer.js';
import { Gateway } from './gateway.js';

const REMEMBERED = 20;
const ALPHABET = '0123456789abcdefghijklmnopqrstuvwxyz';

/** A name for a conversation; it lives as long as the page. */
function conversation() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...random].map((byte) => ALPHABET[byte % 36]).join('')}`;
}

export class Talk {
  constructor(host, live) {
    this.host = host;
    this.gateway = null;
    this.turns = [];
    this.learned = new Set();
    this.last = null;
    this.build();
    live.on('versions', ({ served }) => replace(this.served, 'now serving ', chip(served)));
    this.begin();
  }

  async enter() {
    if (this.gateway) return;
    try {
      const about = await ask('api/about');
      this.gateway = new Gateway(about.gateway);
      this.model = about.model;
      this.notice.hidden = Boolean(about.gateway);
      write(this.notice, about.gateway ? '' : 'No gateway is set, so nobody can be asked.');
      if (!about.gateway) this.gateway = null;
    } catch (error) {
      this.notice.hidden = false;
      write(this.notice, error.message);
    }
  }

  build() {
    const field = (name, control) => make('label', {}, make('span', {}, name), control);
    this.served = make('span', {}, 'now serving \u2013');
    this.session = make('code');
    this.notice = make('p', { class: 'notice', role: 'status', hidden: true });
    this.log = make('div', { class: 'log', role: 'log', 'aria-label': 'Conversation' });
    this.input = make('textarea', { id: 'question', rows: 2, placeholder: 'Ask the model' });
    this.input.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    this.button = make('button', { type: 'submit', class: 'main' }, 'Ask');
    this.learn = make('input', { type: 'checkbox', checked: true });
    this.user = make('input', { type: 'text', maxlength: 100, autocomplete: 'off', size: 12 });
    this.heat = make('input', { type: 'number', min: 0, max: 2, step: 0.1, value: 1 });
    this.most = make('input', { type: 'number', min: 1, max: 4096, step: 1, value: 120 });
    this.key = make('input', { type: 'text', class: 'secret', autocomplete: 'off', size: 12 });
    const ask = make(
      'form',
      { class: 'ask' },
      make('label', { for: 'question', class: 'away' }, 'Your question'),
      this.input,
      this.button,
    );
    ask.addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
    const more = make(
      'details',
      { class: 'terms' },
      make('summary', {}, 'Terms of this conversation'),
      make(
        'div',
        { class: 'fields' },
        make('label', { class: 'check' }, this.learn, make('span', {}, 'may be trained on')),
        field('user', this.user),
        field('temperature', this.heat),
        field('most tokens', this.most),
        field('API key', this.key),
      ),
    );
    this.host.append(
      make('h2', { class: 'away' }, 'Talk'),
      make(
        'div',
        { class: 'talk' },
        make(
          'div',
          { class: 'bar' },
          this.served,
          make('span', { class: 'quiet' }, 'conversation ', this.session),
          make('button', { type: 'button', class: 'small', onclick: () => this.begin() }, 'New conversation'),
        ),
        this.notice,
        this.log,
        ask,
        more,
      ),
    );
  }

  begin() {
    this.abort?.abort();
    for (const { answer } of this.turns) answer.stop();
    this.turns = [];
    this.last = null;
    this.name = conversation();
    write(this.session, this.name);
    replace(
      this.log,
      make(
        'p',
        { class: 'quiet invite' },
        'Ask something, then say what you think of the answer. You will see what becomes of it: ',
        'joined to its answer, trained into a version, served.',
      ),
    );
  }

  send() {
    if (this.abort) this.abort.abort();
    else this.ask(this.input.value.trim());
  }

  async ask(question) {
    if (!question) return;
    await this.enter();
    if (!this.gateway) return;
    this.gateway.key = this.key.value.trim();
    if (!this.turns.length) replace(this.log);
    const answer = new Answer(this.gateway, (version) => this.learned.add(version));
    const turn = { question, answer };
    this.turns.push(turn);
    this.log.append(make('article', { class: 'turn question', 'aria-label': 'You' }, said(question)), answer.box);
    this.input.value = '';
    this.abort = new AbortController();
    const { signal } = this.abort;
    write(this.button, 'Stop');
    answer.box.scrollIntoView({ block: 'nearest' });
    try {
      const found = await this.gateway.chat(this.body(), signal, (part) => answer.heard(part));
      answer.done(found);
      this.remark(answer);
    } catch (error) {
      const stopped = error.name === 'AbortError';
      answer.failed(stopped ? 'Stopped. What was left unsaid is not trained on.' : error.message);
      turn.failed = true;
      if (error.status === 401) {
        this.key.closest('details').open = true;
        this.key.focus();
      }
    } finally {
      if (this.abort?.signal === signal) this.abort = null;
      write(this.button, this.abort ? 'Stop' : 'Ask');
      answer.box.scrollIntoView({ block: 'nearest' });
    }
  }

  body() {
    const messages = [];
    for (const { question, answer, failed } of this.turns.slice(-REMEMBERED)) {
      if (failed) continue;
      messages.push({ role: 'user', content: question });
      if (answer.text) messages.push({ role: 'assistant', content: answer.text });
    }
    const metadata = { tailrace_session: this.name, tailrace_learn: String(this.learn.checked) };
    if (this.user.value.trim()) metadata.tailrace_user = this.user.value.trim();
    return {
      model: this.model,
      messages,
      metadata,
      temperature: Number(this.heat.value),
      max_tokens: Number(this.most.value),
      logprobs: true,
    };
  }

  /** Say that an answer is the first by weights that learned from what was said here. */
  remark(answer) {
    const version = Math.max(...answer.versions.filter((one) => one !== null));
    const mine = [...this.learned].filter((one) => one <= version && (this.last ?? -1) < one);
    if (mine.length) {
      const words = `The first answer since version ${Math.max(...mine)} learned from what you said`;
      answer.box.before(make('p', { class: 'remark' }, words));
    } else if (this.last !== null && version !== this.last && Number.isFinite(version)) {
      answer.box.before(make('p', { class: 'remark' }, `Version ${this.last} gave way to ${version}`));
    }
    if (Number.isFinite(version)) this.last = version;
  }
}
