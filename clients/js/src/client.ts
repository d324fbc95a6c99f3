import { type Channel, type Home, type Own, open as openChannel } from './channel.js';
import { emitter } from './emitter.js';
import { TidewireError } from './errors.js';
import { watchLifecycle } from './lifecycle.js';
import { lost } from './links/http.js';
import { type Context, type Failure, type Frame, type Link, now } from './links/link.js';
import { openPoll } from './links/poll.js';
import { openSse } from './links/sse.js';
import { openWebSocket } from './links/ws.js';
import { outbox } from './outbox.js';
import { tokenKeeper } from './token.js';
import type { ChannelOptions, EventMap, Options, Reason, State, Transport } from './types.js';

const OPEN = { ws: openWebSocket, sse: openSse, poll: openPoll };
/** A connection that lasted so long (ms) was a good one: what follows counts from the beginning. */
const STABLE = 5_000;
/** A transport that has worked before is not the one to blame until it has failed so often in a row. */
const PROVEN_MISSES = 3;
/** The longest time between two attempts at a better transport (ms). */
const UPGRADE_CAP = 300_000;

/** A connection to the gateway that comes back by itself. Made by {@link connect}. */
export interface Client {
  /** What the connection is doing. */
  readonly state: State;

  /** Whenever the state changes. Gives what removes the handler. */
  on(event: 'state', handler: (state: State) => void): () => void;
  /** What a handler threw, a token function that failed. Without such a handler it goes to `reportError`. */
  on(event: 'error', handler: (error: unknown) => void): () => void;

  /**
   * The channel of that name, always the same object until it is left. `Events` says what its events carry:
   * `channel<{ new_message: { text: string } }>('room:42')`. The options count for a new one.
   */
  channel<Events extends EventMap = any>(name: string, options?: ChannelOptions): Channel<Events>;

  /**
   * Asks the application (its rpc hook), over WebSocket only; on a lesser transport it waits for a better one. Resolves with
   * the answer's payload. It is asked again only if the gateway says that nothing was done; if the connection breaks before
   * the answer, that is a `timeout`, and what became of the question is unknown. `timeout` is by default the client's
   * `publishTimeout`.
   */
  rpc<T = any>(method: string, payload?: unknown, options?: { timeout?: number }): Promise<T>;

  /** Connects again after `closed`; while waiting, at once. It is called for you at the start. */
  connect(): void;

  /** Ends it. What was not acknowledged is rejected; its channels are joined again by a later `connect`. */
  close(): void;
}

/**
 * Connects to the gateway at `url`, the address before `/v1`; in a page it may be relative (`'/'`). It returns at
 * once, and from then on comes back by itself until `close()`.
 */
export function connect(url: string | URL, options: Options = {}): Client {
  const {
    transports = Object.keys(OPEN) as Transport[], maxQueue = 1_000, publishTimeout = 10_000, connectTimeout = 10_000,
    heartbeat, heartbeatTimeout = 10_000, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch,
    upgradeAfter = 15_000, maxAttempts = Infinity, backoff: { base = 500, cap = 30_000 } = {},
  } = options;
  const root = new URL(url, globalThis.location?.href);
  // Paths are relative to it.
  root.pathname = root.pathname.replace(/\/?$/, '/');

  const channels = new Map<string, Own>();
  let state: State = { status: 'closed', reason: { code: 'closed' } };
  let listening: AbortController;
  let link: Link | undefined;
  /** Which transport is used, how often it has failed in a row, and which have worked. */
  let level = 0;
  let misses = 0;
  const proven = new Set<Transport>();
  let attempt = 0;
  let openedAt = 0;
  let reason: Reason | undefined;
  /** When to come back, if the node has said that it stops. */
  let told = Infinity;
  /** Whether a token was fetched because the gateway refused one: the next refusal is the last. */
  let renewed = false;
  /** Counts attempts, so that what one of them awaited cannot disturb a later one. */
  let turn = 0;
  /** Ends an attempt, begins the next one, or, while connected, looks for a better transport. */
  let timer: ReturnType<typeof setTimeout> | undefined;
  let upgradeWait = 0;

  let isReporting = false;
  const report = (error: unknown): void => {
    // What a handler of errors throws is not for that handler again.
    const isNested = isReporting;
    isReporting = true;
    if (isNested || !events.emit('error', error)) (globalThis.reportError ?? console.error)(error);
    isReporting = isNested;
  };
  const events = emitter(report);

  /** The link if it can be used, and null if there is to be none. */
  const usable = (): Link | undefined | null =>
    state.status === 'open' ? link : state.status === 'closed' ? null : undefined;

  const { flush, answer, tooLarge, fail, ...posts } = outbox(maxQueue, publishTimeout, usable, (name) => {
    const channel = channels.get(name);
    // What comes after a place is never missed, wherever the subscription is.
    return channel?.joined === 1 && !channel.cursor;
  });

  const token = tokenKeeper(options.token, () => withToken(() => link?.renew()));

  const home: Home = {
    ...posts,
    report,
    join: (channel) => {
      // The one that is used last is the one that `channel()` gives; another one of that name ends.
      const other = channels.get(channel.name);
      if (other !== channel) other?.leave();
      channels.set(channel.name, channel);
      channel.joined = 1;
      link?.subscribe(channel);
    },
    leave: ({ name }) => {
      channels.delete(name);
      link?.unsubscribe(name);
      flush();
    },
  };

  const set = (changed: object): void => {
    state = { reason, ...changed } as State;
    events.emit('state', state);
  };

  // --- Connecting ---

  /** One attempt, over the transport whose turn it is. `code` is why, if that is new. */
  const start = (code?: string): void => {
    drop();
    if (code) reason = { code };
    const transport = transports[level]!;
    timer = setTimeout(() => failed({ code: 'timeout' }), connectTimeout);
    const mine = turn;
    set({ status: 'connecting', transport, attempt });
    // Who was told may have ended it.
    if (mine === turn) withToken(() => {
      link = open(transport);
    });
  };

  /** Acts with a token that is good, unless another attempt has begun meanwhile. */
  const withToken = (act: () => void): void => {
    const mine = turn;
    token.get().then(() => {
      if (mine !== turn) return;
      token.remind();
      act();
    }, (error: unknown) => {
      if (mine !== turn) return;
      report(error);
      // A connection that is open ends with its token, and then one is asked for again.
      if (!usable()) failed({ ...lost(error), code: 'token' });
    });
  };

  /** Opens a link: the client's own, or, with other handlers, one that is only looked at. */
  const open = (transport: Transport, handlers?: Pick<Context, 'receive' | 'opened' | 'failed'>): Link | undefined => {
    const all = { receive, opened, failed, ...handlers };
    try {
      return OPEN[transport]({
        url: (path) => new URL(path, root),
        patience: heartbeatTimeout,
        quiet: heartbeat,
        token: token.value,
        WebSocket,
        fetch,
        idle: flush,
        places: () => [...channels.values()].filter((channel) => (handlers ? channel.joined : channel.joined &&= 1)),
        ...all,
      });
    } catch (error) {
      // A WebSocket that the page's policy forbids.
      all.failed(lost(error));
      return undefined;
    }
  };

  /** Ends what there is; what it still does counts no more. */
  const drop = (): void => {
    clearTimeout(timer);
    token.rest();
    link?.close();
    link = undefined;
    told = Infinity;
    turn += 1;
  };

  const opened = (session?: string): void => {
    // A stream that began anew, with other channels.
    if (usable()) return;
    clearTimeout(timer);
    const transport = transports[level]!;
    openedAt = now();
    misses = 0;
    proven.add(transport);
    set({ status: 'open', transport, session });
    flush();
    if (usable() && level) scheduleUpgrade();
  };

  /** The connection or the attempt is over: decides what comes next. */
  const failed = ({ code, message, final, token: isToken, retry }: Failure): void => {
    const wasOpen = usable();
    const left = told - now();
    drop();
    reason = { code, message };
    if (code === 1009) tooLarge();
    if (wasOpen && now() - openedAt > STABLE) {
      attempt = 0;
      renewed = false;
    }
    if (isToken) token.drop();
    if (isToken && token.canRenew ? final && renewed : final || isToken) return shut(reason);
    // Refused: once, another one may do.
    if (final) {
      renewed = true;
      return start();
    }
    if (left <= 0) return start('shutdown');
    // Who closes with a code of its own, or says when to come back, is there, and will serve then.
    if (!wasOpen && code !== 'token' && !((code as number) >= 4000) && !retry && fallsBack()) return start();
    if (attempt >= maxAttempts) return shut({ code: 'max_attempts', message: `${code}` });
    const wait = Math.min(left, retry ?? Math.random() * Math.min(cap, base * 2 ** attempt));
    attempt += 1;
    timer = setTimeout(start, wait);
    set({ status: 'waiting', until: Date.now() + wait, attempt });
  };

  /** Whether the next transport is to be tried at once. After the last one it is the first one's turn again. */
  const fallsBack = (): boolean => {
    misses += 1;
    if (misses < PROVEN_MISSES && proven.has(transports[level]!)) return false;
    misses = 0;
    level = (level + 1) % transports.length;
    return !!level;
  };

  const shut = (why: Reason): void => {
    if (state.status === 'closed') return;
    drop();
    listening.abort();
    fail();
    set({ status: 'closed', reason: why });
  };

  // --- While connected ---

  const receive = (frame: Frame): void => {
    const { type, channel, id, code, reconnect } = frame;
    if (channel) {
      channels.get(channel)?.receive(frame);
      // A channel may be there now, for which messages wait.
      if (type !== 'message') flush();
    } else if (id) {
      answer(frame);
    } else if (type === 'shutdown') {
      // Then the node ends the connection: its clients' times are spread. Several streams have several.
      told = Math.min(told, now() + reconnect);
    } else if (code && code !== 'too_fast') {
      // Of a message without an acknowledgement: nobody else hears of it.
      events.emit('error', new TidewireError(code, frame.message));
    }
  };

  /** Looks now and then whether a better transport can be had, on a connection of its own. */
  const scheduleUpgrade = (): void => {
    const mine = turn;
    timer = setTimeout(async () => {
      upgradeWait = Math.min(upgradeWait * 2, UPGRADE_CAP);
      for (let better = 0; better < level; better += 1) {
        const works = await canHave(transports[better]!);
        if (mine !== turn) return;
        if (!works) continue;
        level = better;
        return start('upgrade');
      }
      scheduleUpgrade();
    }, upgradeWait * (0.5 + Math.random()));
  };

  const canHave = async (transport: Transport): Promise<boolean> => {
    let probe: Link | undefined;
    const works = await new Promise<boolean>((resolve) => {
      setTimeout(resolve, connectTimeout, false);
      probe = open(transport, { receive: () => {}, opened: () => resolve(true), failed: () => resolve(false) });
    });
    probe?.close();
    return works;
  };

  const awake = (): void => {
    if (state.status === 'waiting') start('online');
    else link?.probe?.();
  };

  const asleep = (): void => {
    drop();
    reason = { code: 'frozen' };
    set({ status: 'waiting', attempt });
  };

  const client: Client = {
    get state() {
      return state;
    },
    on: events.on,
    channel: (name, given) => {
      let channel = channels.get(name);
      if (!channel) {
        if (!/^(?!:|\.\.?$)[^\s\p{Cc}{}*?,]+$/u.test(name)) throw new TypeError(`no channel name: ${name}`);
        channel = openChannel(name, home, given);
        channels.set(name, channel);
      }
      return channel;
    },
    rpc: posts.rpc,
    connect: () => {
      if (state.status === 'closed') {
        listening = new AbortController();
        watchLifecycle(awake, asleep, listening.signal);
        attempt = 0;
        upgradeWait = upgradeAfter;
        renewed = false;
      } else if (state.status !== 'waiting') {
        return;
      }
      start();
    },
    close: () => shut({ code: 'closed' }),
  };
  client.connect();
  return client;
}
