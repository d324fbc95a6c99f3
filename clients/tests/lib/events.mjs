// Event streams with the npm package `eventsource`, which behaves as a browser's EventSource.

import { EventSource } from 'eventsource';
import { Inbox } from './wait.mjs';

const CONTROL = ['welcome', 'gap', 'denied', 'shutdown'].map((name) => `tidewire:${name}`);

/** An open stream: its events as `{event, data, id}` in an inbox. */
export class Events {
  #inbox = new Inbox();

  constructor(url, names, options) {
    this.raw = new EventSource(url, options);
    for (const name of ['message', ...CONTROL, ...names]) {
      this.raw.addEventListener(name, ({ type, data, lastEventId }) => {
        this.#inbox.put({ event: type, data, id: lastEventId });
      });
    }
    this.raw.addEventListener('error', ({ code }) => {
      if (this.raw.readyState === EventSource.CLOSED) this.#inbox.close({ code });
    });
  }

  /** Opens one that ends with the test. `names` are the events to listen to besides `message`. */
  static async open(t, node, query, { names = [], options } = {}) {
    const events = new Events(`${node.url}/v1/sse?${query}`, names, options);
    t.after(() => events.raw.close());
    events.welcome = JSON.parse((await events.find('tidewire:welcome')).data);
    return events;
  }

  next() {
    return this.#inbox.next();
  }

  /** The next event of this name, leaving out others. */
  find(name) {
    return this.#inbox.find(({ event }) => event === name);
  }

  /** Why it is closed for ever: `{code}`, the HTTP status. */
  failed() {
    return this.#inbox.end();
  }
}

/** A fetch that notes in `attempts` when each began and what `retry:` it was told last. */
export function watchedFetch(attempts) {
  return async (url, init) => {
    const attempt = { began: performance.now() };
    attempts.push(attempt);
    const response = await fetch(url, init);
    const decoder = new TextDecoder();
    const body = response.body.pipeThrough(new TransformStream({
      transform(chunk, controller) {
        // The node writes each `retry:` in one piece.
        const told = [...decoder.decode(chunk, { stream: true }).matchAll(/^retry: (\d+)$/gm)];
        if (told.length > 0) attempt.retry = Number(told.at(-1)[1]);
        controller.enqueue(chunk);
      },
    }));
    return new Response(body, response);
  };
}
