// The gateway's HTTP API, straight from the page: streamed answers, feedback and what became of it.

export class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class Gateway {
  /** `url`: its base, with or without /v1, or null. `key`: an API key, kept in memory alone. */
  constructor(url) {
    this.url = url?.replace(/(\/v1)?\/*$/, '') ?? null;
    this.key = '';
  }

  async call(path, body, { signal, method = 'POST' } = {}) {
    const headers = {};
    if (body) headers['content-type'] = 'application/json';
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(this.url + path, {
        method,
        headers,
        signal,
        body: body ? JSON.stringify(body) : undefined,
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Refused(
        0,
        `The gateway at ${this.url} does not answer, or does not let this page ask ` +
          '(its setting cors_origins).',
      );
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => null);
    throw new Refused(
      response.status,
      told?.error?.message ?? `status ${response.status}`,
      told?.error?.code,
    );
  }

  /** One answer. `heard({text, tokens})` for each part; resolves to {id, session, spans,
   *  untrainable, finish}. Raises Refused, and AbortError where `signal` ended it. */
  async chat(body, signal, heard) {
    const response = await this.call('/v1/chat/completions', { ...body, stream: true }, { signal });
    const found = { id: null, session: null, spans: [], untrainable: null, finish: null };
    for await (const data of events(response.body)) {
      if (data === '[DONE]') break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(response.status, chunk.error.message, chunk.error.code);
      found.id = chunk.id;
      found.session = chunk.tailrace?.session_id ?? found.session;
      const [choice] = chunk.choices;
      if (!choice) continue;
      if (choice.tailrace) {
        found.spans = choice.tailrace.weight_versions;
        found.untrainable = choice.tailrace.untrainable;
      }
      found.finish = choice.finish_reason ?? found.finish;
      heard({ text: choice.delta?.content ?? '', tokens: choice.logprobs?.content ?? [] });
    }
    if (!found.finish) throw new Refused(0, 'The answer broke off: the connection ended early.');
    return found;
  }

  /** Say something of an answer: its feedback id. */
  async feedback(document) {
    const response = await this.call('/v1/feedback', document);
    return (await response.json()).feedback_id;
  }

  /** What became of a feedback; null while nothing is known of it. */
  async fate(feedbackId) {
    try {
      const path = `/v1/feedback/${encodeURIComponent(feedbackId)}`;
      return await (await this.call(path, null, { method: 'GET' })).json();
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /** Name of the model that is served. */
  async model() {
    const response = await this.call('/v1/models', null, { method: 'GET' });
    return (await response.json()).data[0].id;
  }
}

/** The data of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value;
    let end;
    while ((end = waiting.indexOf('\n\n')) >= 0) {
      const event = waiting.slice(0, end);
      waiting = waiting.slice(end + 2);
      for (const line of event.split('\n')) {
        if (line.startsWith('data: ')) yield line.slice(6);
      }
    }
  }
}
