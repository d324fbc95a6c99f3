import { emitter } from './emitter.js';
import { type Frame, PASSING, type Place } from './links/link.js';
import type { ChannelOptions, Denied, EventMap, Gap, Message, PublishOptions, Receipt, Subscribed } from './types.js';

/** A message id counts as the same message for as long as the gateway remembers it (ms), and among so many. */
const REMEMBERED_MS = 300_000;
const REMEMBERED = 500;

/** What handlers can listen to beside events of messages. */
const OWN = /^(\*|gap|subscribed|denied)$/;

/** What a channel needs of its client. @internal */
export interface Home {
  join(channel: Own): void;
  leave(channel: Own): void;
  publish(channel: string, event: string, payload: unknown, options?: PublishOptions): Promise<Receipt>;
  send(channel: string, event: string, payload: unknown, options?: PublishOptions): void;
  report(error: unknown): void;
}

/**
 * A channel. It is subscribed with the first `on` and stays so, over all connections, until `leave`; one that
 * is only published to is never subscribed.
 */
export interface Channel<Events extends EventMap = any> {
  /** The channel's name. */
  readonly name: string;
  /** The place of the last message; `undefined` before the first subscription and on live channels. */
  readonly cursor: string | undefined;

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

  /**
   * Publishes, and resolves once the gateway has acknowledged it. Until then it is sent again, with the same id
   * and over as many connections as it takes, for `timeout` milliseconds. What is published after `on` comes back to
   * that handler.
   */
  publish<E extends keyof Events & string>(event: E, payload: Events[E], options?: PublishOptions): Promise<Receipt>;

  /**
   * Publishes what is worthless a second later (a cursor, a key stroke): at most once, or not at all. It is dropped while
   * there is no connection, or more was sent than the gateway takes.
   */
  send<E extends keyof Events & string>(event: E, payload: Events[E], options?: { echo?: boolean }): void;

  /** Unsubscribes and removes all handlers. A later `on` goes on from here. */
  leave(): void;
}

/** A channel as its client has it. @internal */
export interface Own extends Channel, Place {
  cursor: string | undefined;
  joined: number;
  /** Takes a frame of this channel. */
  receive(frame: Frame): void;
}

export function open(name: string, home: Home, { cursor, rewind }: ChannelOptions = {}): Own {
  const { on, clear, emit } = emitter(home.report);
  const seen = new Map<string, number>();
  /** It was subscribed and had no place. */
  let wasLive = false;

  /** Whether this message has come already: a retry on a live channel, or one that Redis had lost. */
  const isRepeated = ({ messageId, timestamp }: Record<string, any>): boolean => {
    const time = Date.parse(timestamp);
    const isRepeated = Math.abs(time - seen.get(messageId)!) < REMEMBERED_MS;
    if (messageId && !isRepeated) {
      seen.set(messageId, time);
      if (seen.size > REMEMBERED) seen.delete(seen.keys().next().value!);
    }
    return isRepeated;
  };

  const channel: Own = {
    name,
    cursor,
    rewind,
    joined: 0,
    on: (event: string, handler: (...args: any[]) => void) => {
      const off = on(event, handler);
      if (!channel.joined) home.join(channel);
      return off;
    },
    publish: (event, payload, options) => home.publish(name, event, payload, options),
    send: (event, payload, options) => home.send(name, event, payload, options),
    leave: () => {
      clear();
      if (!channel.joined) return;
      channel.joined = 0;
      wasLive = false;
      home.leave(channel);
    },
    receive: ({ type, id, encoding, retry = 1_000, ...frame }) => {
      const { code, cursor, event } = frame;
      const passes = PASSING.includes(code);
      // Also that of `position`, with which nothing else comes.
      if (cursor) channel.cursor = cursor;
      if (channel.joined && (code || type === 'subscribed')) channel.joined = passes ? 1 : 2;
      if (type === 'message') {
        if (isRepeated(frame)) return;
        if (encoding) frame.payload = Uint8Array.from(atob(frame.payload), (char) => char.charCodeAt(0));
        // Names that are no events of messages: those who listen to them expect something else.
        if (!OWN.test(event)) emit(event, frame.payload, frame);
        emit('*', frame.payload, frame);
      } else if (type === 'gap') {
        emit(type, frame);
      } else if (type === 'subscribed') {
        // A live channel keeps nothing: what was sent between two connections is lost.
        const missed = wasLive;
        wasLive = !cursor;
        emit(type, frame);
        if (missed) emit('gap', { channel: name });
      } else if (code === 'bad_cursor' && channel.cursor) {
        // A place that nobody knows: what came after it is unknown.
        const after = channel.cursor;
        channel.cursor = undefined;
        emit('gap', { channel: name, after });
        if (channel.joined) home.join(channel);
      } else if (passes) {
        // Unless another connection has it by then.
        setTimeout(() => channel.joined === 1 && home.join(channel), retry);
      } else if (code) {
        emit('denied', { channel: name, code });
      }
    },
  };
  return channel;
}
