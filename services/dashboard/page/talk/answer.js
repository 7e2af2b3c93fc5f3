// One answer in the chat: its text as it comes, its tokens by version, and what a person says of it.

import { ask } from '../ask.js';
import { make, mark, replace, said, write } from '../dom.js';
import { toInteraction } from '../route.js';
import { chip, coloured, legend, spanned } from '../tokens.js';
import { count } from '../words.js';
import { Fate } from './fate.js';

const TRIES_MS = [300, 700, 1500, 3000, 6000];

export class Answer {
  constructor(gateway, trained) {
    this.gateway = gateway;
    this.trained = trained;
    this.text = '';
    this.tokens = [];
    this.decoder = new TextDecoder();
    this.thumb = null;
    this.voting = false;
    this.stopped = false;
    this.fates = [];
    this.words = make('div', { class: 'words' });
    this.meta = make('div', { class: 'meta' });
    this.say = make('div', { class: 'say', hidden: true });
    this.form = make('div');
    this.ways = make('div', { class: 'ways' });
    this.box = make(
      'article',
      { class: 'turn answer', 'aria-busy': 'true', 'aria-label': 'Answer' },
      this.words,
      this.meta,
      this.say,
      this.form,
      this.ways,
    );
  }

  heard({ text, tokens }) {
    this.text += text;
    for (const { token, bytes, logprob } of tokens) {
      // A letter may lie in several tokens: it is shown with the last of them.
      const spelled = bytes ? this.decoder.decode(new Uint8Array(bytes), { stream: true }) : token;
      this.tokens.push({ text: spelled, logprob });
    }
    this.words.textContent = this.text;
  }

  /** The answer is whole. */
  done(found) {
    this.id = found.id;
    this.versions = [...new Set(found.spans.map(({ version }) => version))];
    this.box.setAttribute('aria-busy', 'false');
    this.box.dataset.interaction = found.id;
    this.show(spanned(this.tokens, found.spans));
    replace(
      this.meta,
      // Where there are several, the legend has them.
      this.versions.length === 1 ? chip(this.versions[0]) : null,
      count(this.tokens.length, 'token'),
      found.finish === 'length' ? ' \u00b7 cut at its limit' : null,
      found.untrainable ? ` \u00b7 not trained on: ${found.untrainable}` : null,
      make('a', { href: toInteraction(found.id) }, 'why'),
    );
    this.buttons();
    this.read(0);
  }

  failed(words) {
    this.box.setAttribute('aria-busy', 'false');
    this.box.dataset.state = 'bad';
    this.words.append(make('p', { class: 'wrong' }, words));
  }

  show(tokens) {
    let length = 0;
    for (const token of tokens) {
      // The token that ends an answer is no text of it.
      token.ends = length >= this.text.length;
      length += token.text?.length ?? 0;
    }
    if (length < this.text.trim().length) replace(this.words, said(this.text));
    else replace(this.words, coloured(tokens), this.versions.length > 1 ? legend(tokens) : null);
  }

  /** The tokens as the log has them: it takes a moment until they are there. */
  async read(tries) {
    try {
      const turn = await ask(`api/why/${encodeURIComponent(this.id)}`);
      const logged = turn.answers[0]?.tokens ?? [];
      if (logged.length) {
        // What was streamed is spelled better: a letter may lie in several tokens.
        const own = logged.length === this.tokens.length ? this.tokens : [];
        this.show(logged.map((token, at) => ({ ...token, text: own[at]?.text ?? token.text })));
        this.box.dataset.read = 'log';
        return;
      }
    } catch {
      // Not there yet, or the dashboard is away: what was streamed stays.
    }
    if (tries < TRIES_MS.length) setTimeout(() => this.read(tries + 1), TRIES_MS[tries]);
  }

  buttons() {
    const thumb = (value, text) =>
      make('button', { type: 'button', 'aria-pressed': 'false', onclick: () => this.vote(value) }, text);
    this.up = thumb(true, 'Good');
    this.down = thumb(false, 'Bad');
    this.up.prepend(make('span', { class: 'thumb', 'aria-hidden': 'true' }));
    this.down.prepend(make('span', { class: 'thumb down', 'aria-hidden': 'true' }));
    this.say.hidden = false;
    replace(
      this.say,
      this.up,
      this.down,
      make('button', { type: 'button', onclick: () => this.write('edit') }, 'Edit'),
      make('button', { type: 'button', onclick: () => this.write('comment') }, 'Comment'),
    );
  }

  /** One thumb at a time: the next must know which one it replaces. */
  async vote(value) {
    if (this.voting || this.thumb?.value === value) return;
    const more = this.thumb ? { replaces: this.thumb.id } : {};
    this.voting = true;
    this.pressed(value);
    const document = { metric_name: 'thumbs', value, ...more };
    const id = await this.send(document, value ? 'good' : 'bad');
    if (id !== null) this.thumb = { value, id };
    this.voting = false;
    this.pressed(this.thumb?.value);
  }

  /** Show which thumb holds, if any, and whether another can be given. */
  pressed(value) {
    for (const [button, says] of [[this.up, true], [this.down, false]]) {
      mark(button, 'aria-pressed', String(value === says));
      // A button that is really disabled would lose the focus.
      mark(button, 'aria-disabled', this.voting && 'true');
    }
  }

  write(kind) {
    const edit = kind === 'edit';
    const name = edit ? 'What the answer should have been' : 'Your comment';
    const area = make('textarea', { rows: edit ? 4 : 2, 'aria-label': name, placeholder: name });
    area.value = edit ? this.text : '';
    const close = () => replace(this.form);
    const send = () => {
      const value = area.value.trim();
      if (!value) return;
      const document = edit
        ? { metric_name: 'edit', kind: 'demonstration', value }
        : { metric_name: 'comment', kind: 'comment', value };
      this.send(document, `${kind}: ${value.slice(0, 60)}${value.length > 60 ? '\u2026' : ''}`);
      close();
    };
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') close();
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) send();
    });
    replace(
      this.form,
      area,
      make(
        'div',
        { class: 'row' },
        make('button', { type: 'button', class: 'main', onclick: send }, 'Send'),
        make('button', { type: 'button', onclick: close }, 'Cancel'),
      ),
    );
    area.focus();
  }

  /** The id of what was said; null where it could not be, which is shown. */
  async send(document, words) {
    const wait = make('p', { class: 'quiet' }, `${words}: sending`);
    this.ways.append(wait);
    try {
      const id = await this.gateway.feedback({ inference_id: this.id, ...document });
      if (this.stopped) return id;
      const fate = new Fate(this.gateway, id, words, this.trained);
      this.fates.push(fate);
      wait.replaceWith(fate.box);
      return id;
    } catch (error) {
      wait.className = 'wrong';
      write(wait, `${words}: ${error.message}`);
      return null;
    }
  }

  stop() {
    this.stopped = true;
    for (const fate of this.fates) fate.stop();
  }
}
