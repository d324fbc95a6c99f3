import { type Emitter, emitter } from './emitter.js';
import type { Frame, Place } from './links/link.js';
import type { ChannelOptions, Denied, EventMap, Gap, Message, PublishOptions, Receipt, Subscribed } from './types.js';

/** A message id counts as the same message for as long as the gateway remembers it (ms), and among so many. */
const REMEMBERED_MS = 300_000;
const REMEMBERED = 500;

/** What handlers can listen to beside events of messages. */
const OWN = /^(\*|gap|subscribed|denied)$/;

/** What a channel needs of its client. @internal */
export interface Home {
  join(channel: Channel<any>): void;
  leave(channel: Channel<any>): void;
  publish(channel: string, event: string, payload: unknown, options?: PublishOptions): Promise<Receipt>;
  send(channel: string, event: string, payload: unknown, options?: PublishOptions): void;
  report(error: unknown): void;
}

/**
 * A channel. It is subscribed with the first `on` and stays so, over all connections, until `leave`; one that
 * is only published to is never subscribed.
 */
export class Channel<Events extends EventMap = any> implements Place {
  /** The channel's name. */
  readonly name: string;
  /** The place of the last message; `undefined` before the first subscription and on live channels. */
  cursor: string | undefined;
  /** Whether it is to be subscribed. @internal */
  joined = false;
  /** Where it was to begin. @internal */
  readonly rewind: number | string | undefined;
  #home: Home;
  #emitter: Emitter;
  #seen = new Map<string, number>();
  /** It was subscribed and had no place. */
  #wasLive = false;

  /** @internal */
  constructor(name: string, home: Home, { cursor, rewind }: ChannelOptions = {}) {
    this.name = name;
    this.cursor = cursor;
    this.rewind = rewind;
    this.#home = home;
    this.#emitter = emitter(home.report);
  }

  /** Messages are missing before what follows: load your state anew. Gives what removes the handler. */
  on(event: 'gap', handler: (gap: Gap) => void): () => void;
  /** With every connection, once what is published from now on arrives. */
  on(event: 'subscribed', handler: (subscribed: Subscribed) => void): () => void;
  /** The gateway refuses the channel. */
  on(event: 'denied', handler: (denied: Denied) => void): () => void;
  /** Every message, whatever its event: also one named `gap`, `subscribed`, `denied` or `*`. */
  on(event: '*', handler: (payload: Events[keyof Events], message: Message<Events[keyof Events]>) => void): () => void;
  /** The messages with this event. Each once, in order. */
  on<E extends keyof Events & string>(event: E, handler: (payload: Events[E], message: Message<Events[E]>) => void): () => void;
  on(event: string, handler: (...args: any[]) => void): () => void {
    const off = this.#emitter.on(event, handler);
    if (!this.joined) {
      this.joined = true;
      this.#home.join(this);
    }
    return off;
  }

  /**
   * Publishes, and resolves once the gateway has acknowledged it. Until then it is sent again, with the same id
   * and over as many connections as it takes, for `timeout` milliseconds.
   */
  publish<E extends keyof Events & string>(event: E, payload: Events[E], options?: PublishOptions): Promise<Receipt> {
    return this.#home.publish(this.name, event, payload, options);
  }

  /** Publishes what is worthless a second later (a cursor, a key stroke): at most once, or not at all. */
  send<E extends keyof Events & string>(event: E, payload: Events[E], options?: { echo?: boolean }): void {
    this.#home.send(this.name, event, payload, options);
  }

  /** Unsubscribes and removes all handlers. A later `on` goes on from here. */
  leave(): void {
    this.#emitter.clear();
    if (!this.joined) return;
    this.joined = this.#wasLive = false;
    this.#home.leave(this);
  }

  /** Takes a frame of this channel. @internal */
  receive({ type, id, encoding, ...frame }: Frame): void {
    const { channel, code, cursor, event } = frame;
    const { emit } = this.#emitter;
    // Also that of `position`, with which nothing else comes.
    if (cursor) this.cursor = cursor;
    if (type === 'message') {
      if (this.#isRepeated(frame)) return;
      if (encoding) frame.payload = Uint8Array.from(atob(frame.payload), (char) => char.charCodeAt(0));
      // Names that are no events of messages: those who listen to them expect something else.
      if (!OWN.test(event)) emit(event, frame.payload, frame);
      emit('*', frame.payload, frame);
    } else if (type === 'gap') {
      emit(type, frame);
    } else if (type === 'subscribed') {
      // A live channel keeps nothing: what was sent between two connections is lost.
      const missed = this.#wasLive;
      this.#wasLive = !cursor;
      emit(type, frame);
      if (missed) emit('gap', { channel });
    } else if (code === 'bad_cursor' && this.cursor) {
      // A place that nobody knows: what came after it is unknown.
      const after = this.cursor;
      this.cursor = undefined;
      emit('gap', { channel, after });
      if (this.joined) this.#home.join(this);
    } else if (code) {
      emit('denied', { channel, code });
    }
  }

  /** Whether this message has come already: a retry on a live channel, or one that Redis had lost. */
  #isRepeated({ messageId, timestamp }: Record<string, any>): boolean {
    const seen = this.#seen;
    const time = Date.parse(timestamp);
    const isRepeated = Math.abs(time - seen.get(messageId)!) < REMEMBERED_MS;
    if (messageId && !isRepeated) {
      seen.set(messageId, time);
      if (seen.size > REMEMBERED) seen.delete(seen.keys().next().value!);
    }
    return isRepeated;
  }
}
