import { type Context, type Failure, LONGEST, type Link, type Post, written } from './link.js';

/** Most messages of one request, and most characters (three bytes at most each; a request may have 1 MiB). */
const BATCH = 100;
const BATCH_CHARS = 300_000;

/** How the gateway says that channels cannot be had. */
export const REFUSED = [400, 403, 404, 409];

/** What it means that no answer came. */
export const lost = (error: unknown): Failure => ({ code: 'network', message: `${error}` });

/** An answer, or what went wrong, as the gateway said it or as it looks from here. */
export type Answer = Response & { failure?: Failure };

/** A request with the token, a POST if it has a body, which may take so long. It rejects when no answer comes, not for an HTTP status. */
export async function request<T>(
  context: Context, path: string, signal: AbortSignal, patience: number, read: (response: Answer) => Promise<T>, body?: string,
): Promise<T> {
  const bound = new AbortController();
  const abort = (): void => bound.abort();
  const timer = setTimeout(abort, patience);
  signal.addEventListener('abort', abort);
  // Nothing on a plain GET that would make a browser ask first.
  const token = context.token();
  const headers = {
    ...(body && { 'content-type': 'application/json' }),
    ...(token && { authorization: `Bearer ${token}` }),
  };
  try {
    const { fetch } = context;
    // Not through the browser's cache: there the polls of two tabs with one address wait for each other.
    const response: Answer = await fetch(context.url(path), {
      method: body && 'POST', body, headers, cache: 'no-store', signal: bound.signal,
    });
    if (!response.ok) response.failure = await failureOf(response);
    // A link that is over hands over nothing.
    signal.throwIfAborted();
    return await read(response);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

async function failureOf(response: Response): Promise<Failure> {
  const { status, headers } = response;
  // What is between may answer with anything.
  const { code = 'network', detail = `HTTP ${status}` } = await response.json().catch(() => ({}));
  const retry = +headers.get('retry-after')! * 1000 || undefined;
  const final = status === 401;
  return { code, message: detail, token: final, final, retry };
}

/**
 * Publishes for the links that only receive: in order, one request at a time. Answers come as the frames of a
 * WebSocket would.
 */
function poster(
  context: Context, { session }: Work, signal: AbortSignal, fail: (failure: Failure) => void,
): Pick<Link, 'wait' | 'publish'> {
  let queue: Post[] = [];
  let chars = 0;
  let busy = false;

  const pump = async (): Promise<void> => {
    const posts = queue;
    queue = [];
    chars = 0;
    busy = true;
    const messages = posts.map((post) => written({ exclude: post.echo === false ? session?.() : undefined }, post));
    const { results, ...failure }: Record<string, any> = await request(
      context, 'v1/messages', signal, context.patience,
      async (response) => response.failure ?? response.json(), `{"messages":[${messages}]}`,
    ).catch(lost);
    busy = false;
    // A link that is over hands over nothing, and its messages go out on the next one.
    if (signal.aborted) return;
    // The token's end, which comes with the next one.
    if (failure.final) return fail(failure as Failure);
    if (queue[0]) queueMicrotask(pump);
    posts.forEach(({ id }, n) => context.receive({ ...failure, ...results?.[n], channel: '', type: '', id }));
    context.idle();
  };

  // Half of it is for those that are waited for.
  const isFull = ({ id, body }: Post, part = id ? 1 : 0.5): unknown =>
    queue[BATCH * part - 1] || (queue[0] && chars + body.length > BATCH_CHARS * part);

  return {
    wait: (post) => (busy || isFull(post) ? LONGEST : 0),
    publish: (post) => {
      if (isFull(post)) return;
      chars += post.body.length;
      // With all that is published in this moment.
      if (queue.push(post) < 2 && !busy) queueMicrotask(pump);
    },
  };
}

/** What an HTTP link is made of. */
export interface Work {
  /** Begins to receive, for the channels that are wanted now, until the signal; called again when they change. */
  start(signal: AbortSignal): Promise<unknown>;
  session?(): string | undefined;
  readonly probe?: () => void;
}

/** A link that receives by requests, which have their channels from the start, and publishes by POST. */
export function httpLink(context: Context, work: (fail: (failure: Failure) => void) => Work): Link {
  const life = new AbortController();
  let run = life;
  let scheduled = false;

  const close = (): void => {
    life.abort();
    run.abort();
  };

  const fail = (failure: Failure): void => {
    if (life.signal.aborted) return;
    close();
    context.failed(failure);
  };

  const does = work(fail);

  /** Without a channel there is nothing to receive; a gateway must be there all the same, and take the token. */
  const knock = (signal: AbortSignal): Promise<void> =>
    request(context, 'v1/poll', signal, context.patience, async ({ status, failure }) => {
      if (status === 400) context.opened();
      else fail(failure!);
    });

  /** Begins anew, once for all changes of this moment. */
  const restart = (): void => {
    if (scheduled) return;
    scheduled = true;
    queueMicrotask(() => {
      scheduled = false;
      if (life.signal.aborted) return;
      if (run !== life) run.abort();
      const { signal } = (run = new AbortController());
      (context.places()[0] ? does.start : knock)(signal).catch((error) => {
        if (!signal.aborted) fail(lost(error));
      });
    });
  };

  restart();
  return {
    subscribe: restart,
    unsubscribe: restart,
    renew: restart,
    ...poster(context, does, life.signal, fail),
    probe: does.probe,
    close,
  };
}
