// What a figure means and where it comes from: one text box, shown on hover and on focus.
//
// An element with `data-hint` names a field of /api/fields ("section.field"), or has its text in
// `data-say`. The box can be hovered itself, and Escape hides it.

import { make, write } from './dom.js';

const EDGE = 8;

export class Hints {
  constructor(fields = {}) {
    this.fields = fields;
    this.title = make('strong');
    this.text = make('span');
    this.box = make('div', { id: 'hint', role: 'tooltip', hidden: true }, this.title, this.text);
    this.target = null;
    document.body.append(this.box);
    document.addEventListener('pointerover', (event) => this.over(event));
    document.addEventListener('focusin', (event) => this.show(owner(event.target)));
    document.addEventListener('focusout', () => this.hide());
    document.addEventListener('keydown', (event) => event.key === 'Escape' && this.hide());
    window.addEventListener('scroll', () => this.follow(), { passive: true });
    window.addEventListener('hashchange', () => this.hide());
  }

  over(event) {
    if (this.box.contains(event.target)) return;
    const target = owner(event.target);
    if (!target && this.focused()) return;
    if (target !== this.target) this.show(target);
  }

  /** A focus may scroll the page itself: its hint goes along. */
  follow() {
    if (this.focused()) this.show(this.target);
    else this.hide();
  }

  focused() {
    return this.target !== null && this.target === document.activeElement;
  }

  /** The text of an element's hint; empty where nothing is known of it. */
  of(target) {
    const { hint, say } = target.dataset;
    const known = hint ? this.fields[hint] : null;
    return [known, say].filter(Boolean).join('\n');
  }

  show(target) {
    this.hide();
    const text = target && this.of(target);
    if (!text) return;
    this.target = target;
    write(this.title, target.dataset.name ?? target.textContent.trim().slice(0, 80));
    write(this.text, text);
    this.box.hidden = false;
    target.setAttribute('aria-describedby', 'hint');
    const at = target.getBoundingClientRect();
    const own = this.box.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const left = Math.min(Math.max(EDGE, at.left), width - own.width - EDGE);
    const below = at.bottom + EDGE;
    const above = at.top - own.height - EDGE;
    const top = below + own.height > window.innerHeight && above > 0 ? above : below;
    this.box.style.left = `${Math.max(EDGE, left)}px`;
    this.box.style.top = `${top}px`;
  }

  hide() {
    this.box.hidden = true;
    this.target?.removeAttribute('aria-describedby');
    this.target = null;
  }
}

function owner(target) {
  return target instanceof Element ? target.closest('[data-hint], [data-say]') : null;
}

/** A word that has a hint. */
export function word(text, hint, say = null) {
  return make('span', { class: 'word', tabindex: 0, 'data-hint': hint, 'data-say': say }, text);
}
