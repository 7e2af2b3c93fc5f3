// Elements made by hand: text is always a text node, so nothing that users wrote is ever markup.

/** An element. `attributes`: strings are attributes, `on...` functions are listeners, true is an
 *  empty attribute, null and false are left out. Children: nodes, texts, lists, null. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

/** Write a text where it changed: an untouched node keeps selections and is not spoken again. */
export function write(element, text) {
  const words = String(text);
  if (element.textContent !== words) element.textContent = words;
}

/** Set or take away an attribute. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Make the children of `host` those of `items`, in order: one is made for each new key, changed
 *  where its key is still there, and removed with it. Focus and scroll stay where they were. */
export function keep(host, items, keyOf, create, change) {
  host.kept ??= new Map();
  const seen = new Set();
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) continue;
    seen.add(key);
    let child = host.kept.get(key);
    if (!child) {
      child = create(item);
      host.kept.set(key, child);
    }
    change(child, item);
    const place = before ? before.nextSibling : host.firstChild;
    if (place !== child) host.insertBefore(child, place);
    before = child;
  }
  for (const [key, child] of host.kept) {
    if (!seen.has(key)) {
      child.remove();
      host.kept.delete(key);
    }
  }
}

/** Take everything out and put these in. */
export function replace(host, ...children) {
  host.replaceChildren();
  host.kept = undefined;
  add(host, children);
  return host;
}

const SHOWN = 2000;

/** A text as its user wrote it. A long one is cut in view, and can be copied whole. */
export function said(text, shown = SHOWN) {
  const whole = String(text ?? '');
  if (whole.length <= shown) return make('span', { class: 'said' }, whole);
  const size = `${whole.length.toLocaleString('en')} characters`;
  return make(
    'span',
    { class: 'said' },
    `${whole.slice(0, shown)}\u2026 `,
    make('span', { class: 'quiet' }, `cut, ${size} in all `),
    copier(() => whole, 'Copy whole'),
  );
}

/** A button that copies what `text()` gives, and says whether it could. */
export function copier(text, label = 'Copy') {
  const button = make('button', { type: 'button', class: 'small' }, label);
  button.addEventListener('click', async (event) => {
    event.stopPropagation();
    write(button, (await copy(text())) ? 'Copied' : 'Not allowed to copy');
    setTimeout(() => write(button, label), 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that are not served over TLS have no clipboard but that of a selection.
    const area = make('textarea', { class: 'away', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}
