import type { Options, Reason } from '../types.js';

/** A frame of the protocol, whatever the transport. */
export type Frame = { type: string } & Record<string, any>;

/** A channel as a link needs to know it: where it is now. */
export interface Place {
  readonly name: string;
  readonly cursor: string | undefined;
  readonly rewind: number | string | undefined;
  /** 1 while it is to be subscribed, 2 once that is answered (it is there, or refused), else 0. */
  readonly joined: number;
}

/** A publish as a link needs to know it. */
export interface Post {
  /** Without: nobody waits for an answer. */
  readonly id?: number;
  /** The channel that it is published to, or else the method that the application is asked for. */
  readonly channel?: string;
  readonly method?: string;
  /** `"event":…,"payload":…,"messageId":…`, in JSON without braces. */
  readonly body: string;
  readonly echo?: boolean | undefined;
}

/** Why a link failed, and what to do about it. */
export interface Failure extends Reason {
  /** Do not come back, unless with another token where that is the reason. */
  final?: boolean | undefined;
  /** The token is no longer good. */
  token?: boolean | undefined;
  /** Come back after so many milliseconds and not by back-off. */
  retry?: number | undefined;
}

/** What a link is given. */
export interface Context {
  /** The address of a path. */
  url(path: string): URL;
  /** How long an answer may take, and after which silence one is asked for (ms). */
  readonly patience: number;
  readonly quiet: number | undefined;
  /** The newest token. */
  token(): string | undefined;
  readonly WebSocket: NonNullable<Options['WebSocket']>;
  readonly fetch: typeof fetch;
  /** The channels that are wanted, all of which are to be subscribed now: none of them is there yet. */
  places(): Place[];
  /** Hands over a frame; `subscribed` is of the links' own making. One with a channel and a `code`: it cannot be had. */
  receive(frame: Frame): void;
  /** Ready for use. */
  opened(session?: string): void;
  /** There is room for publishes again, after a `wait` of which nobody could say how long it takes. */
  idle(): void;
  /** It is over; called once, and not after `close`. */
  failed(failure: Failure): void;
}

/** One connection over one transport. It never comes back by itself. */
export interface Link {
  subscribe(place: Place): unknown;
  unsubscribe(name: string): unknown;
  /** For how long (ms) this post has to wait, {@link LONGEST} at most: 0 or less if it can be published now. */
  wait(post: Post): number;
  /** Publishes; what has no id may be dropped. */
  publish(post: Post): void;
  /** Whether the application can be asked over it. */
  readonly asks?: boolean;
  /** Asks for a sign of life now. */
  readonly probe?: (() => void) | undefined;
  /** There is a new token. */
  renew(): void;
  /** Ends it; nothing is handed over any more. */
  close(): void;
}

/** The longest that a timer is to wait (ms): eleven days. Beyond 2^31 they fire at once. */
export const LONGEST = 1e9;

/** Codes after which the same thing may go well. */
export const PASSING = ['unavailable', 'timeout', 'too_fast', 'network'];

/** A post's JSON, with these members before its own. */
export const written = (head: object, { channel, body }: Post): string =>
  `${JSON.stringify({ ...head, channel }).slice(0, -1)},${body}}`;

/** Bytes in UTF-8. */
export const size = (text: string): number => new TextEncoder().encode(text).length;

export const now = (): number => performance.now();
