import { TidewireError } from './errors.js';
import { type Frame, LONGEST, type Link, PASSING, type Post, now, size } from './links/link.js';
import type { PublishOptions, Receipt } from './types.js';

interface Pending extends Post {
  readonly id: number;
  /** The connection that has it, or the last one that had. */
  on?: Link | undefined;
  /** It was handed to a connection at least once: what became of it may be unknown. */
  sent?: boolean;
  /** It was refused, and is not tried again before. */
  after?: number;
  settle(code?: string | number, message?: string, acked?: object): void;
}

function randomId(): string {
  // Not `randomUUID`, which browsers have only on pages that came over TLS.
  return crypto.getRandomValues(new BigUint64Array(2)).join('-');
}

// Nothing is null, as in an array.
const bodyOf = (members: object, payload: unknown): string =>
  JSON.stringify({ ...members, payload: payload ?? null }).slice(1, -1);

/** What is published, or asked, and not answered: sent again, with the same id, until it is or its time is over. */
export interface Outbox {
  publish(channel: string, event: string, payload: unknown, options?: PublishOptions): Promise<Receipt>;
  /** Asks the application. A question whose connection breaks is not asked again. */
  rpc(method: string, payload: unknown, options?: { timeout?: number }): Promise<any>;
  /** Sends without an acknowledgement; nothing if there is no connection. */
  send(channel: string, event: string, payload: unknown, options?: PublishOptions): void;
  /** Something has changed (a connection is open, has room, a channel is there): what can go out goes out, in order. */
  flush(): void;
  /** Takes an answer: an acknowledgement, or an error, which has a code. */
  answer(frame: Omit<Frame, 'type'>): void;
  /** The connection was closed because of a frame over the limit: the largest one it is. */
  tooLarge(): void;
  /** Gives up on all, for the client is closed. */
  fail(): void;
}

/**
 * `link` gives the connection if there is one that is open, and null if there is to be none; `holds` says whether
 * messages to a channel must wait.
 */
export function outbox(
  most: number, patience: number, link: () => Link | undefined | null, holds: (channel: string) => unknown,
): Outbox {
  const pending = new Map<number, Pending>();
  let ids = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let scheduled = false;
  /** The gateway was told too much: until then nothing goes out. */
  let early = 0;

  const flush = (): void => {
    clearTimeout(timer);
    const to = link();
    if (!to || early > now()) return;
    /** Channels, and questions, whose turn has not come: what is behind them waits, too. */
    const behind = new Set<unknown>();
    for (const post of pending.values()) {
      const { channel = post, method } = post;
      if (post.on === to || (method && !to.asks)) continue;
      if (method && post.sent) {
        post.settle('timeout');
      } else if (post.after! > now() || behind.has(channel) || holds(channel as string)) {
        behind.add(channel);
      } else {
        const wait = to.wait(post);
        if (wait > 0) {
          timer = setTimeout(flush, wait);
          return;
        }
        post.on = to;
        post.sent = true;
        to.publish(post);
      }
    }
  };

  const add = (given: Post, timeout = patience, messageId?: string): Promise<Record<string, any>> =>
    new Promise((resolve, reject) => {
      const id = ++ids;
      const settle: Pending['settle'] = (code, message, acked) => {
        clearTimeout(late);
        pending.delete(id);
        if (code) reject(new TidewireError(code, message, messageId));
        else resolve(acked!);
      };
      const post: Pending = { ...given, id, settle };
      const late = setTimeout(() => settle(post.sent ? 'timeout' : 'unavailable'), Math.min(timeout, LONGEST));
      if (link() === null) return settle('closed');
      if (pending.size >= most) return settle('queue_full');
      pending.set(id, post);
      // Once for all that are added in this moment.
      if (!scheduled) queueMicrotask(() => {
        scheduled = false;
        flush();
      });
      scheduled = true;
    });

  return {
    publish: async (channel, event, payload, { timeout, messageId = randomId(), echo } = {}) => {
      const acked = await add({ channel, body: bodyOf({ event, messageId }, payload), echo }, timeout, messageId);
      return { duplicate: false, ...acked, messageId };
    },
    rpc: async (method, payload, { timeout } = {}) => (await add({ method, body: bodyOf({ method }, payload) }, timeout)).payload,
    send: (channel, event, payload, { echo } = {}) => {
      if (early < now()) link()?.publish({ channel, body: bodyOf({ event }, payload), echo });
    },
    flush,
    answer: ({ id, type, channel, code, message, retry = 500, ...acked }) => {
      const post = pending.get(id);
      if (!post) return;
      // What the application was asked, and may have done, is not asked again.
      if (!PASSING.includes(code) || (post.method && code === 'timeout')) return post.settle(code, message, acked);
      if (post.method) post.sent = false;
      post.on = undefined;
      // Spread, so that those of many clients do not come back together.
      const wait = retry * (1 + Math.random() / 2);
      const after = now() + wait;
      if (code === 'too_fast') early = after;
      else post.after = after;
      // Timers may be early.
      setTimeout(flush, wait + 9);
    },
    tooLarge: () => {
      // What is larger, though it was not sent yet, would be too large, too.
      [...pending.values()].sort((a, b) => size(b.body) - size(a.body))[0]?.settle('too_large');
    },
    fail: () => {
      clearTimeout(timer);
      pending.forEach((post) => post.settle('closed'));
    },
  };
}
