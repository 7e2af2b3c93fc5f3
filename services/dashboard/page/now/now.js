// The view *Now*: the live picture, section by section.

import { make } from '../dom.js';
import { Account } from './account.js';
import { Alarms, Engines, Lag, Topics, Writers } from './machines.js';
import { People, Way } from './people.js';
import { Strip } from './strip.js';
import { Training, Versions } from './weights.js';

const REPEATED_MS = 2000;
const WITH_AGES = ['versions', 'engines', 'account', 'lag', 'alarms', 'processes'];

export class Now {
  constructor(host, live) {
    this.live = live;
    const grid = make('div', { class: 'grid' });
    const top = make('div');
    host.append(make('h2', { class: 'away' }, 'Now'), top, grid);
    this.strip = new Strip(top, live);
    for (const Part of [People, Way, Versions, Engines, Alarms]) new Part(grid, live);
    for (const Part of [Account, Training, Lag, Topics, Writers]) new Part(grid, live);
  }

  /** While it is seen, what says how long ago something was is written again and again. */
  enter() {
    this.timer ??= setInterval(() => this.live.repeat(WITH_AGES), REPEATED_MS);
  }

  leave() {
    clearInterval(this.timer);
    this.timer = null;
  }
}
