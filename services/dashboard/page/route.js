// Where the page is: #tab/rest?key=value. Every view has an address that can be kept and sent.

/** {tab, path: [texts], query: {name: text}} of a hash. */
export function read(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [tab, ...rest] = path.split('/').map(decoded);
  return { tab, path: rest.filter(Boolean), query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The hash of a place; empty values of the query are left out. */
export function address(tab, path = [], query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== '' && value !== null);
  const words = new URLSearchParams(given).toString();
  return `#${[tab, ...path].map(encodeURIComponent).join('/')}${words ? `?${words}` : ''}`;
}

export const toInteraction = (id) => address('why', ['interaction', id]);
export const toVersion = (version) => address('why', ['version', String(version)]);

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
