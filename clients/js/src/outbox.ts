import { TidewireError } from './errors.js';
import type { Frame, Link, Post } from './links/link.js';
import type { PublishOptions, Receipt } from './types.js';

/** Codes after which the same message may go well. */
const PASSING = ['unavailable', 'timeout', 'too_fast', 'network'];

interface Pending extends Post {
  readonly id: number;
  /** It was handed to a connection at least once: what became of it may be unknown. */
  sent?: boolean;
  timer?: ReturnType<typeof setTimeout>;
  settle(code?: string | number, message?: string, acked?: object): void;
}

function randomId(): string {
  // Not `randomUUID`, which browsers have only on pages that came over TLS.
  return crypto.getRandomValues(new BigUint64Array(2)).join('-');
}

// What cannot be JSON (a function, nothing) is null, as in an array.
const bodyOf = (members: object, payload: unknown): string =>
  JSON.stringify({ ...members, payload: payload ?? null }).slice(1, -1);

/** What is published, or asked, and not answered: sent again, with the same id, until it is or its time is over. */
export interface Outbox {
  publish(channel: string, event: string, payload: unknown, options?: PublishOptions): Promise<Receipt>;
  /** Asks the application. A question whose connection breaks is not asked again. */
  rpc(method: string, payload: unknown, options?: { timeout?: number }): Promise<any>;
  /** Sends without an acknowledgement; nothing if there is no connection. */
  send(channel: string, event: string, payload: unknown, options?: PublishOptions): void;
  /** A connection is open: everything goes out on it, in order. */
  flush(): void;
  /** Takes an answer: an acknowledgement, or an error, which has a code. */
  answer(frame: Omit<Frame, 'type'>): void;
  /** The connection was closed because of a frame over the limit: the largest one it is. */
  tooLarge(): void;
  /** Gives up on all. */
  fail(code: string): void;
}

/** `link` gives the connection if there is one that is open, and null if there is to be none. */
export function outbox(most: number, patience: number, link: () => Link | undefined | null): Outbox {
  const pending = new Map<number, Pending>();
  let ids = 0;

  const send = (post: Pending): void => {
    const to = link();
    clearTimeout(post.timer);
    if (post.method && post.sent) return post.settle('timeout');
    if (!to || (post.method && !to.asks)) return;
    post.sent = true;
    to.publish(post);
  };

  const add = (given: Post, timeout = patience, messageId?: string): Promise<Record<string, any>> =>
    new Promise((resolve, reject) => {
      const id = ++ids;
      const settle: Pending['settle'] = (code, message, acked) => {
        clearTimeout(late);
        clearTimeout(post.timer);
        pending.delete(id);
        if (code) reject(new TidewireError(code, message, messageId));
        else resolve(acked!);
      };
      const post: Pending = { ...given, id, settle };
      const late = setTimeout(() => settle(post.sent ? 'timeout' : 'unavailable'), timeout);
      if (link() === null) return settle('closed');
      if (pending.size >= most) return settle('queue_full');
      pending.set(id, post);
      send(post);
    });

  return {
    publish: async (channel, event, payload, { timeout, messageId = randomId(), echo } = {}) => {
      const acked = await add({ channel, body: bodyOf({ event, messageId }, payload), echo }, timeout, messageId);
      return { duplicate: false, ...acked, messageId };
    },
    rpc: async (method, payload, { timeout } = {}) => (await add({ method, body: bodyOf({ method }, payload) }, timeout)).payload,
    send: (channel, event, payload, { echo } = {}) => link()?.publish({ channel, body: bodyOf({ event }, payload), echo }),
    flush: () => pending.forEach(send),
    answer: ({ id, type, channel, code, message, retry = 500, ...acked }) => {
      const post = pending.get(id);
      if (!post) return;
      // What was certainly not done may be asked again.
      if (post.method) post.sent = code === 'timeout';
      if (PASSING.includes(code) && !(post.method && post.sent)) {
        // Spread, so that those of many clients do not come back together.
        post.timer = setTimeout(send, retry * (0.5 + Math.random()), post);
      } else {
        post.settle(code, message, acked);
      }
    },
    tooLarge: () => {
      const sent = [...pending.values()].filter((post) => post.sent);
      sent.sort((a, b) => b.body.length - a.body.length)[0]?.settle('too_large');
    },
    fail: (code) => pending.forEach((post) => post.settle(code)),
  };
}
