import { Channel, type Home } from './channel.js';
import { type Emitter, emitter } from './emitter.js';
import { TidewireError } from './errors.js';
import { watchLifecycle } from './lifecycle.js';
import { lost } from './links/http.js';
import { type Context, type Failure, type Frame, type Link, now } from './links/link.js';
import { openPoll } from './links/poll.js';
import { openSse } from './links/sse.js';
import { openWebSocket } from './links/ws.js';
import { type Outbox, outbox } from './outbox.js';
import { type TokenKeeper, tokenKeeper } from './token.js';
import type { ChannelOptions, EventMap, Options, Reason, State, Transport } from './types.js';

const OPEN = { ws: openWebSocket, sse: openSse, poll: openPoll };
/** A connection that lasted so long (ms) was a good one: what follows counts from the beginning. */
const STABLE = 5_000;
/** A transport that has worked before is not the one to blame until it has failed so often in a row. */
const PROVEN_MISSES = 3;
/** The longest time between two attempts at a better transport (ms). */
const UPGRADE_CAP = 300_000;

/** A connection to the gateway that comes back by itself. Made by {@link connect}. */
export class Client {
  #base: URL;
  #options: Options;
  #patience: number;
  #transports: readonly Transport[];
  #emitter: Emitter;
  #channels = new Map<string, Channel<any>>();
  #outbox: Outbox;
  #home: Home;
  #token: TokenKeeper;
  #state: State = { status: 'closed', reason: { code: 'closed' } };
  #listening = new AbortController();

  #link: Link | undefined;
  /** Which transport is used, how often it has failed in a row, and which have worked. */
  #level = 0;
  #misses = 0;
  #proven = new Set<Transport>();
  #attempt = 0;
  #openedAt = 0;
  #reason: Reason | undefined;
  /** When to come back, if the node has said that it stops. */
  #told = Infinity;
  /** Whether a token was fetched because the gateway refused one: the next refusal is the last. */
  #renewed = false;
  /** Counts attempts, so that what one of them awaited cannot disturb a later one. */
  #turn = 0;
  /** Ends an attempt, begins the next one, or, while connected, looks for a better transport. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #upgradeWait = 0;

  #report = (error: unknown): void => {
    if (this.#emitter.emit('error', error)) return;
    (globalThis.reportError ?? console.error)(error);
  };

  /** @internal */
  constructor(url: string | URL, options: Options) {
    this.#base = new URL(url, globalThis.location?.href);
    // Paths are relative to it.
    this.#base.pathname = this.#base.pathname.replace(/\/?$/, '/');
    this.#options = options;
    const { transports = Object.keys(OPEN) as Transport[], maxQueue = 1_000, publishTimeout = 10_000, connectTimeout = 10_000 } = options;
    this.#transports = transports;
    this.#patience = connectTimeout;
    this.#emitter = emitter(this.#report);
    this.#outbox = outbox(maxQueue, publishTimeout, () => this.#usable);
    this.#token = tokenKeeper(options.token, () => this.#withToken(() => this.#link?.renew()));
    this.#home = {
      ...this.#outbox,
      report: this.#report,
      join: (channel) => {
        // The one that is used last is the one that `channel()` gives.
        this.#channels.set(channel.name, channel);
        this.#link?.subscribe(channel);
      },
      leave: ({ name }) => {
        this.#channels.delete(name);
        this.#link?.unsubscribe(name);
      },
    };
    this.connect();
  }

  /** What the connection is doing. */
  get state(): State {
    return this.#state;
  }

  /** Whenever the state changes. Gives what removes the handler. */
  on(event: 'state', handler: (state: State) => void): () => void;
  /** What a handler threw, a token function that failed. Without such a handler it goes to `reportError`. */
  on(event: 'error', handler: (error: unknown) => void): () => void;
  on(event: string, handler: (...args: any[]) => void): () => void {
    return this.#emitter.on(event, handler);
  }

  /**
   * The channel of that name, always the same object until it is left. `Events` says what its events carry:
   * `channel<{ new_message: { text: string } }>('room:42')`. The options count for a new one.
   */
  channel<Events extends EventMap = any>(name: string, options?: ChannelOptions): Channel<Events> {
    let channel = this.#channels.get(name);
    if (!channel) {
      if (!/^(?!:|\.\.?$)[^\s\p{Cc}{}*?,]+$/u.test(name)) throw new TypeError(`no channel name: ${name}`);
      channel = new Channel(name, this.#home, options);
      this.#channels.set(name, channel);
    }
    return channel as Channel<Events>;
  }

  /**
   * Asks the application (its rpc hook), over WebSocket only; on a lesser transport it waits for a better one. Resolves with
   * the answer's payload. It is asked once: if the connection breaks before the answer, that is a `timeout`, and what became
   * of the question is unknown. `timeout` is by default the client's `publishTimeout`.
   */
  rpc<T = any>(method: string, payload?: unknown, options?: { timeout?: number }): Promise<T> {
    return this.#outbox.rpc(method, payload, options);
  }

  /** Connects again after `closed`; while waiting, at once. It is called for you at the start. */
  connect(): void {
    const { status } = this.#state;
    if (status === 'closed') {
      this.#listening = new AbortController();
      watchLifecycle(this.#awake, this.#asleep, this.#listening.signal);
      this.#attempt = 0;
      this.#upgradeWait = this.#options.upgradeAfter ?? 15_000;
      this.#renewed = false;
    } else if (status !== 'waiting') {
      return;
    }
    this.#start();
  }

  /** Ends it. What was not acknowledged is rejected; its channels are joined again by a later `connect`. */
  close(): void {
    this.#close({ code: 'closed' });
  }

  /** The link if it can be used, and null if there is to be none. */
  get #usable(): Link | undefined | null {
    const { status } = this.#state;
    return status === 'open' ? this.#link : status === 'closed' ? null : undefined;
  }

  #set(state: object): void {
    this.#state = { reason: this.#reason, ...state } as State;
    this.#emitter.emit('state', this.#state);
  }

  // --- Connecting ---

  /** One attempt, over the transport whose turn it is. `code` is why, if that is new. */
  #start(code?: string): void {
    this.#drop();
    if (code) this.#reason = { code };
    const current = this.#current();
    this.#timer = setTimeout(() => this.#failed({ code: 'timeout' }), this.#patience);
    this.#set({ status: 'connecting', transport: this.#transport, attempt: this.#attempt });
    this.#withToken(() => {
      this.#link = this.#open(this.#transport, {
        receive: current(this.#receive),
        opened: current(this.#opened),
        failed: current(this.#failed),
      });
    });
  }

  /** Makes of a function one that does nothing once another attempt has begun. */
  #current() {
    const turn = this.#turn;
    return <A>(act: (what: A) => void) => (what: A): void => {
      if (turn === this.#turn) act(what);
    };
  }

  /** Acts with a token that is good. */
  #withToken(act: () => void): void {
    const current = this.#current();
    this.#token.get().then(current(() => {
      this.#token.remind();
      act();
    })).catch(current((error: unknown) => {
      this.#report(error);
      // A connection that is open ends with its token, and then one is asked for again.
      if (!this.#usable) this.#failed({ code: 'token', message: `${error}` });
    }));
  }

  get #transport(): Transport {
    return this.#transports[this.#level]!;
  }

  #open(transport: Transport, handlers: Pick<Context, 'receive' | 'opened' | 'failed'>): Link | undefined {
    const { heartbeat, heartbeatTimeout = 10_000, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch } = this.#options;
    try {
      return OPEN[transport]({
        url: (path) => new URL(path, this.#base),
        patience: heartbeatTimeout,
        quiet: heartbeat,
        token: this.#token.value,
        WebSocket,
        fetch,
        places: () => [...this.#channels.values()].filter(({ joined }) => joined),
        ...handlers,
      });
    } catch (error) {
      // A WebSocket that the page's policy forbids.
      handlers.failed(lost(error));
      return undefined;
    }
  }

  /** Ends what there is; what it still does counts no more. */
  #drop(): void {
    clearTimeout(this.#timer);
    this.#token.rest();
    this.#link?.close();
    this.#link = undefined;
    this.#told = Infinity;
    this.#turn += 1;
  }

  #opened = (session?: string): void => {
    // A stream that began anew, with other channels.
    if (this.#usable) return;
    clearTimeout(this.#timer);
    this.#openedAt = now();
    this.#misses = 0;
    this.#proven.add(this.#transport);
    this.#set({ status: 'open', transport: this.#transport, session });
    this.#outbox.flush();
    if (this.#usable && this.#level) this.#scheduleUpgrade();
  };

  /** The connection or the attempt is over: decides what comes next. */
  #failed = ({ code, message, final, token, retry }: Failure): void => {
    const wasOpen = this.#state.status === 'open';
    const told = this.#told - now();
    this.#drop();
    this.#reason = { code, message };
    if (code === 1009) this.#outbox.tooLarge();
    if (wasOpen && now() - this.#openedAt > STABLE) {
      this.#attempt = 0;
      this.#renewed = false;
    }
    const { canRenew } = this.#token;
    if (token) this.#token.drop();
    if (token && canRenew ? final && this.#renewed : final || token) return this.#close(this.#reason);
    // Refused: once, another one may do.
    if (final) {
      this.#renewed = true;
      return this.#start();
    }
    if (told <= 0) return this.#start('shutdown');
    // Who closes with a code of its own, or says when to come back, is there, and will serve then.
    if (!wasOpen && code !== 'token' && !((code as number) >= 4000) && !retry && this.#fallsBack()) return this.#start();
    if (this.#attempt >= (this.#options.maxAttempts ?? Infinity)) {
      return this.#close({ code: 'max_attempts', message: `${code}` });
    }
    const { base = 500, cap = 30_000 } = this.#options.backoff ?? {};
    const wait = Math.min(told, retry ?? Math.random() * Math.min(cap, base * 2 ** this.#attempt));
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#start(), wait);
    this.#set({ status: 'waiting', until: Date.now() + wait, attempt: this.#attempt });
  };

  /** Whether the next transport is to be tried at once. After the last one it is the first one's turn again. */
  #fallsBack(): boolean {
    this.#misses += 1;
    if (this.#misses < PROVEN_MISSES && this.#proven.has(this.#transport)) return false;
    this.#misses = 0;
    this.#level = (this.#level + 1) % this.#transports.length;
    return !!this.#level;
  }

  #close(reason: Reason): void {
    if (this.#state.status === 'closed') return;
    this.#drop();
    this.#listening.abort();
    this.#outbox.fail('closed');
    this.#set({ status: 'closed', reason });
  }

  // --- While connected ---

  #receive = (frame: Frame): void => {
    const { type, channel, id, reconnect } = frame;
    if (channel) {
      this.#channels.get(channel)?.receive(frame);
    } else if (id) {
      this.#outbox.answer(frame);
    } else if (type === 'shutdown') {
      // Then the node ends the connection: its clients' times are spread. Several streams have several.
      this.#told = Math.min(this.#told, now() + reconnect);
    } else if (frame.code) {
      // Of a message without an acknowledgement: nobody else hears of it.
      this.#emitter.emit('error', new TidewireError(frame.code, frame.message));
    }
  };

  /** Looks now and then whether a better transport can be had, on a connection of its own. */
  #scheduleUpgrade(): void {
    const turn = this.#turn;
    this.#timer = setTimeout(async () => {
      this.#upgradeWait = Math.min(this.#upgradeWait * 2, UPGRADE_CAP);
      for (let level = 0; level < this.#level; level += 1) {
        const works = await this.#works(this.#transports[level]!);
        if (turn !== this.#turn) return;
        if (!works) continue;
        this.#level = level;
        return this.#start('upgrade');
      }
      this.#scheduleUpgrade();
    }, this.#upgradeWait * (0.5 + Math.random()));
  }

  async #works(transport: Transport): Promise<boolean> {
    let link: Link | undefined;
    const works = await new Promise<boolean>((resolve) => {
      setTimeout(resolve, this.#patience, false);
      link = this.#open(transport, {
        receive: () => {}, opened: () => resolve(true), failed: () => resolve(false),
      });
    });
    link?.close();
    return works;
  }

  #awake = (): void => {
    if (this.#state.status !== 'waiting') return this.#link?.probe?.();
    this.#start('online');
  };

  #asleep = (): void => {
    this.#drop();
    this.#reason = { code: 'frozen' };
    this.#set({ status: 'waiting', attempt: this.#attempt });
  };
}

/**
 * Connects to the gateway at `url`, the address before `/v1`; in a page it may be relative (`'/'`). It returns at
 * once, and from then on comes back by itself until `close()`.
 */
export function connect(url: string | URL, options: Options = {}): Client {
  return new Client(url, options);
}
