// The view *Now*: the live picture, section by section.

import { make } from '../dom.js';
import { Account } from './account.js';
import { Alarms, Engines, Lag, Topics, Writers } from './machines.js';
import { People, Way } from './people.js';
import { Strip } from './strip.js';
import { Training, Versions } from './weights.js';

export class Now {
  constructor(host, live) {
    const grid = make('div', { class: 'grid' });
    const top = make('div');
    host.append(make('h2', { class: 'away' }, 'Now'), top, grid);
    this.strip = new Strip(top, live);
    for (const Part of [People, Way, Versions, Engines, Account, Training]) new Part(grid, live);
    for (const Part of [Alarms, Lag, Writers, Topics]) new Part(grid, live);
  }
}
