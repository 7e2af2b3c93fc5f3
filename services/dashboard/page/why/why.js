// The view *Why*: search, one interaction from prompt to weights, one version from weights to what
// moved it. Each has an address.

import { ask } from '../ask.js';
import { make, replace, write } from '../dom.js';
import { address, read, toInteraction, toVersion } from '../route.js';
import { Chain } from './chain.js';
import { Search } from './search.js';
import { Weights } from './weights.js';

export class Why {
  constructor(host) {
    this.search = new Search((query) => this.go(address('why', [], query)));
    this.status = make('p', { class: 'quiet status', role: 'status' });
    this.found = make('div', { class: 'found' });
    host.append(make('h2', { class: 'away' }, 'Why'), this.search.form, this.status, this.found);
    this.shown = null;
  }

  /** Search; what is searched for once more is read once more. */
  go(hash) {
    if (hash !== location.hash) location.hash = hash;
    else {
      this.shown = null;
      this.enter(read(hash));
    }
  }

  /** What is there when one comes back is read again: the log went on. */
  leave() {
    this.abort?.abort();
    this.shown = null;
  }

  /** Show what an address names. */
  async enter({ path, query }) {
    const place = JSON.stringify([path, query]);
    if (place === this.shown) return;
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.shown = place;
    const id = path.length > 1 ? path.slice(1).join('/') : null;
    if (!id && goesTo(query.q)) {
      location.replace(goesTo(query.q));
      return;
    }
    this.search.fill(query);
    if (id) this.search.box.value = id;
    write(this.status, 'reading the log');
    try {
      if (id) await this.one(id, signal);
      else await this.list(query, signal);
    } catch (error) {
      if (signal.aborted) return;
      replace(this.found);
      write(this.status, error.message);
      this.shown = null;
    }
  }

  async one(id, signal) {
    const [known, { masked }] = await Promise.all([
      ask(`api/why/${encodeURIComponent(id)}`, { signal }),
      ask('api/about', { signal }),
    ]);
    if (signal.aborted) return;
    write(this.status, '');
    const view = known.kind === 'version' ? new Weights(known) : new Chain(known, masked);
    replace(this.found, view.box);
  }

  async list(query, signal) {
    const [known, { masked }] = await Promise.all([
      ask('api/search', { signal, query: { ...query, limit: 50 } }),
      ask('api/about', { signal }),
    ]);
    if (signal.aborted) return;
    replace(this.found, this.search.results(known, masked));
    write(this.status, this.search.words(known));
  }
}

/** Where an id or a version's number leads at once; null for what has to be searched. */
function goesTo(text) {
  if (!text) return null;
  if (/^\d{1,9}$/.test(text)) return toVersion(text);
  // <session>~<turn>, and of feedback <interaction or session>!<token>.
  return /^[^\s:]+:\S*[~!]\S+$/.test(text) ? toInteraction(text) : null;
}
