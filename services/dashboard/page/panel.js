// Panels and their tables: a titled box, and rows that are changed in place.

import { keep, make, mark, replace, write } from './dom.js';
import { word } from './hints.js';

let made = 0;

/** A titled box in the grid; `area` is its place in the layout. `body` is where its content goes. */
export function panel(title, area, { hint, say } = {}) {
  made += 1;
  const id = `panel-title-${made}`;
  const body = make('div', { class: 'body' });
  const side = make('div', { class: 'side' });
  const words = hint || say ? word(title, hint, say) : title;
  const box = make(
    'section',
    { class: `panel ${area}`, 'aria-labelledby': id },
    make('header', {}, make('h2', { id }, words), side),
    body,
  );
  return { box, body, side };
}

/** A table whose rows are kept by key. A column: {name, hint, number: to the right, wraps: may be
 *  broken, text(row) or for more than text put(cell, row), kind(row): the cell's class}. */
export class Table {
  constructor(host, columns, keyOf, { empty = 'nothing yet', label } = {}) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.rows = make('tbody');
    this.none = make('p', { class: 'quiet none' }, empty);
    const head = columns.map(({ name, hint, say, number }) =>
      make('th', { scope: 'col', class: number ? 'number' : null }, hint || say ? word(name, hint, say) : name),
    );
    this.table = make(
      'table',
      { 'aria-label': label },
      make('thead', {}, make('tr', {}, head)),
      this.rows,
    );
    host.append(make('div', { class: 'scroll' }, this.table), this.none);
  }

  set(rows) {
    this.none.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
    keep(this.rows, rows, this.keyOf, () => this.row(), (element, row) => this.change(element, row));
  }

  row() {
    return make(
      'tr',
      {},
      this.columns.map(({ number, wraps }) =>
        make('td', { class: number ? 'number' : wraps ? 'wraps' : null }),
      ),
    );
  }

  change(element, row) {
    this.columns.forEach((column, index) => {
      const cell = element.children[index];
      if (column.kind) mark(cell, 'data-kind', column.kind(row));
      if (column.put) column.put(cell, row);
      else write(cell, column.text(row));
    });
  }
}

/** Put a link into a cell, once for each address. */
export function link(cell, text, href) {
  const now = cell.firstElementChild;
  if (now?.getAttribute('href') === href) write(now, text);
  else replace(cell, make('a', { href }, text));
}
