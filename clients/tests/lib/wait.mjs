// Waiting: for what comes in (Inbox), and for what can only be asked (until). Used by all tests;
// nothing here waits for a fixed time.

import { setTimeout as sleep } from 'node:timers/promises';

/** How long a test waits for what should come at once; long, because machines are busy. */
const PATIENCE_MS = 15_000;
const GLANCE_MS = 20;

/** Asks until the answer is neither falsy nor an error; returns it. */
export async function until(what, ask, patience = PATIENCE_MS) {
  const end = Date.now() + patience;
  let last = 'no';
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error.cause?.message ?? error.message;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${patience} ms (last: ${last})`);
    await sleep(GLANCE_MS);
  }
}

/** Gives the promise's value, or fails when it takes too long. */
export async function soon(what, promise, patience = PATIENCE_MS) {
  const bound = new AbortController();
  const late = sleep(patience, undefined, { signal: bound.signal }).then(() => {
    throw new Error(`${what}: not within ${patience} ms`);
  });
  // Aborted when the promise was first; nobody waits for it then.
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    bound.abort();
  }
}

/** What came from a server and was not taken yet. */
export class Inbox {
  #items = [];
  #waiting = [];
  #end;

  put(item) {
    this.#items.push(item);
    this.#wake();
  }

  /** Nothing comes any more; the first reason counts. */
  close(reason) {
    this.#end ??= { reason };
    this.#wake();
  }

  get isClosed() {
    return this.#end !== undefined;
  }

  /** The next item, whatever it is. */
  next() {
    return this.find(() => true);
  }

  /** The next item that fits; those before it are left out. */
  async find(fits) {
    const seen = [];
    const taken = async () => {
      for (;;) {
        while (this.#items.length > 0) {
          const item = this.#items.shift();
          if (fits(item)) return item;
          seen.push(item);
        }
        if (this.#end) throw new Error(`ended: ${JSON.stringify(this.#end.reason)}`);
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    };
    try {
      return await soon('something that fits', taken());
    } catch (error) {
      throw new Error(`${error.message}; passed over: ${JSON.stringify(seen).slice(0, 2000)}`);
    }
  }

  /** The next so many items. */
  async take(count) {
    const items = [];
    while (items.length < count) items.push(await this.next());
    return items;
  }

  /** Why it ended, once it has. */
  async end() {
    const ended = async () => {
      while (!this.#end) await new Promise((resolve) => this.#waiting.push(resolve));
      return this.#end.reason;
    };
    return soon('the end', ended());
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
