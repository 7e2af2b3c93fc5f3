// Asking the dashboard's own server: JSON, or an error in words.

/** What a route answers. Raises Error with the server's own words, or says that it is away. */
export async function ask(path, { signal, query = {} } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== '' && value != null);
  const words = new URLSearchParams(given).toString();
  let response;
  try {
    response = await fetch(words ? `${path}?${words}` : path, { signal });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('the dashboard does not answer; try again in a moment');
  }
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // What is no JSON is said as it is.
  }
  if (response.ok && body !== null) return body;
  const told = body?.error?.message ?? body?.error ?? body?.detail ?? text.slice(0, 300);
  throw new Error(String(told || `status ${response.status}`));
}
