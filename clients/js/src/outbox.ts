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

function bodyOf(event: string, payload: unknown, messageId?: string): string {
  // What cannot be JSON (a function, nothing) is null, as in an array.
  return JSON.stringify({ event, payload: payload ?? null, messageId }).slice(1, -1);
}

/** What is published and not acknowledged: sent again, with the same id, until it is or its time is over. */
export interface Outbox {
  publish(channel: string, event: string, payload: unknown, options?: PublishOptions): Promise<Receipt>;
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

/** `link` gives the connection if there is one that is open. */
export function outbox(most: number, patience: number, link: () => Link | undefined): Outbox {
  const pending = new Map<number, Pending>();
  let ids = 0;

  const send = (post: Pending): void => {
    const to = link();
    clearTimeout(post.timer);
    if (!to) return;
    post.sent = true;
    to.publish(post);
  };

  return {
    publish: (channel, event, payload, { timeout = patience, messageId = randomId(), echo = true } = {}) =>
      new Promise((resolve, reject) => {
        const id = ++ids;
        const settle: Pending['settle'] = (code, message, acked) => {
          clearTimeout(late);
          clearTimeout(post.timer);
          pending.delete(id);
          if (code) reject(new TidewireError(code, message, messageId));
          else resolve({ duplicate: false, ...acked, messageId } as unknown as Receipt);
        };
        const post: Pending = { id, channel, body: bodyOf(event, payload, messageId), echo, settle };
        const late = setTimeout(() => settle(post.sent ? 'timeout' : 'unavailable'), timeout);
        if (pending.size >= most) return settle('queue_full');
        pending.set(id, post);
        send(post);
      }),
    send: (channel, event, payload, { echo = true } = {}) =>
      link()?.publish({ channel, body: bodyOf(event, payload), echo }),
    flush: () => pending.forEach(send),
    answer: ({ id, type, channel, code, message, retry = 500, ...acked }) => {
      const post = pending.get(id);
      if (PASSING.includes(code) && post) {
        // Spread, so that those of many clients do not come back together.
        post.timer = setTimeout(send, retry * (0.5 + Math.random()), post);
      } else {
        post?.settle(code, message, acked);
      }
    },
    tooLarge: () => {
      const sent = [...pending.values()].filter((post) => post.sent);
      sent.sort((a, b) => b.body.length - a.body.length)[0]?.settle('too_large');
    },
    fail: (code) => pending.forEach((post) => post.settle(code)),
  };
}
