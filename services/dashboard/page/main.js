// The page: four views behind tabs, one live line, one box of hints. Starts everything.

import { ask } from './ask.js';
import { mark, write } from './dom.js';
import { Hints } from './hints.js';
import { Live } from './live.js';
import { Now } from './now/now.js';
import { read } from './route.js';
import { Tail } from './tail/tail.js';
import { Talk } from './talk/talk.js';
import { Why } from './why/why.js';

const NAMES = ['now', 'talk', 'why', 'tail'];
const tabs = Object.fromEntries(NAMES.map((name) => [name, document.getElementById(`tab-${name}`)]));
const panels = Object.fromEntries(
  NAMES.map((name) => [name, document.getElementById(`panel-${name}`)]),
);
const line = document.getElementById('line');

const hints = new Hints();
const live = new Live('api/stream', (state, words) => {
  line.dataset.state = state;
  write(line, words);
});
const views = {
  now: new Now(panels.now, live),
  talk: new Talk(panels.talk, live),
  why: new Why(panels.why),
  tail: new Tail(panels.tail),
};

let last = 'now';
let left = '#now';

async function fields() {
  try {
    hints.fields = await ask('api/fields');
  } catch {
    setTimeout(fields, 5000);
  }
}

function go() {
  if (location.hash === '#view') {
    history.replaceState(null, '', left);
    document.getElementById('view').focus();
    return;
  }
  const place = read(location.hash);
  const shown = NAMES.includes(place.tab) ? place.tab : 'now';
  for (const name of NAMES) {
    mark(tabs[name], 'aria-selected', name === shown ? 'true' : 'false');
    mark(tabs[name], 'tabindex', name === shown ? '0' : '-1');
    if (name !== shown && !panels[name].hidden) views[name].leave?.();
    // A tab leads back to where one was in it, and from there to its beginning.
    if (name === last && name !== shown) mark(tabs[name], 'href', left);
    panels[name].hidden = name !== shown;
  }
  mark(tabs[shown], 'href', `#${shown}`);
  last = shown;
  left = location.hash || '#now';
  document.title = `${tabs[shown].textContent} \u00b7 tailrace`;
  views[shown].enter?.(place);
}

function press(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const at = NAMES.findIndex((name) => tabs[name] === event.target);
  const to = {
    ArrowRight: (at + 1) % NAMES.length,
    ArrowLeft: (at + NAMES.length - 1) % NAMES.length,
    Home: 0,
    End: NAMES.length - 1,
  }[event.key];
  if (event.key === ' ') event.target.click();
  else if (to !== undefined) {
    tabs[NAMES[to]].focus();
    location.hash = tabs[NAMES[to]].getAttribute('href');
  } else return;
  event.preventDefault();
}

for (const name of NAMES) tabs[name].addEventListener('keydown', press);
window.addEventListener('hashchange', go);
fields();
go();
