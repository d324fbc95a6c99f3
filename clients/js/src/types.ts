/** Ways to be connected, best first. */
export type Transport = 'ws' | 'sse' | 'poll';

/** The payload's type of each event of a channel; see {@link Client.channel}. */
export type EventMap = { [event: string]: unknown };

/** How to connect. Every member may be left out; times are in milliseconds. */
export interface Options {
  /**
   * The user's token (JWT), or a function that gets one; it may be async. The function is called before
   * the first connection, before the token expires, and whenever the gateway says that it has. Without:
   * no token.
   */
  token?: string | (() => string | Promise<string>);
  /** What may be used, best first. Default: `['ws', 'sse', 'poll']`. */
  transports?: readonly Transport[];
  /** The delay before the n-th attempt is a random one up to `min(cap, base * 2^n)`. Default: 500 and 30,000. */
  backoff?: { base?: number; cap?: number };
  /** After so many attempts in a row without success it gives up. Default: no limit. */
  maxAttempts?: number;
  /** For how long an attempt may last. Default: 10,000. */
  connectTimeout?: number;
  /** After so long without a sign of life the gateway is asked for one. Default: what the gateway says (25,000). */
  heartbeat?: number;
  /** A connection that then gives none for so long is dead. Default: 10,000. */
  heartbeatTimeout?: number;
  /** For how long a publish is tried. Default: 10,000. */
  publishTimeout?: number;
  /** How many publishes may wait for their acknowledgement; further ones are rejected. Default: 1,000. */
  maxQueue?: number;
  /** On a lesser transport a better one is tried after so long, then after twice as long, up to 5 minutes. Default: 15,000. */
  upgradeAfter?: number;
  /** The WebSocket class: where there is no global one (Node.js 20: that of the package `ws`), or one that speaks MessagePack. */
  WebSocket?: new (url: string | URL) => WebSocket;
  /** The fetch function, where the global one is not to be used. */
  fetch?: typeof fetch;
}

/** Why a connection ended, or why there is none. */
export interface Reason {
  /**
   * A code of the protocol (`unauthorized`, `unavailable`, `timeout`, …), the number of a WebSocket's close code,
   * or one of the client's own: `network` (broken, or not to be had), `timeout` (no sign of life), `token` (the function
   * failed), `shutdown` (the node stops), `frozen` (the page is put away), `online` (it, or the network, is back),
   * `upgrade` (a better transport works), `max_attempts`, `closed` (by `close()`).
   */
  code: string | number;
  /** What there is to say beyond the code. */
  message?: string;
}

/** What the connection is doing. */
export type State =
  /** Trying to connect; `reason` is why the last connection ended. */
  | { status: 'connecting'; transport: Transport; attempt: number; reason?: Reason }
  /** Connected. `session` is missing while polling. */
  | { status: 'open'; transport: Transport; session?: string; reason?: Reason }
  /** Waiting until `until` (ms since 1970) for the next attempt; without it until the page is shown again. */
  | { status: 'waiting'; until?: number; attempt: number; reason: Reason }
  /** Over, until `connect()` is called. */
  | { status: 'closed'; reason: Reason };

/** A message as the gateway has sent it. */
export interface Message<T = unknown> {
  /** The channel's name. */
  channel: string;
  /** The message's name. */
  event: string;
  /** What was published; bytes are a `Uint8Array`. */
  payload: T;
  /** When the gateway accepted it (RFC 3339). */
  timestamp: string;
  /** Missing where a plain Redis `PUBLISH` gave none. */
  messageId?: string;
  /** Its place; missing on live channels. */
  cursor?: string;
  /** The client that published it, if a client did. */
  from?: { user?: string; session?: string };
}

/** Messages are missing before what follows: load your state anew. */
export interface Gap {
  /** The channel's name. */
  channel: string;
  /** The last place before it. */
  after?: string;
  /** The place from which the channel goes on. */
  cursor?: string;
}

/** The channel is subscribed: what is published from now on arrives. */
export interface Subscribed {
  /** The channel's name. */
  channel: string;
  /** The place before the first message that follows; missing on live channels. */
  cursor?: string;
  /** After a reconnect: whether nothing is missing. */
  recovered?: boolean;
}

/** The gateway refuses the channel; it is asked again with the next connection. */
export interface Denied {
  /** The channel's name. */
  channel: string;
  /** The protocol's code: `forbidden`, `bad_channel`, `no_history` (a live channel while polling), … */
  code: string;
}

/** How one message is published. */
export interface PublishOptions {
  /** For how long it is tried, in milliseconds. Default: the client's `publishTimeout`. */
  timeout?: number;
  /** Its id; by default a random one is made. The same id within 5 minutes is delivered once. */
  messageId?: string;
  /** `false`: not back to this client. */
  echo?: boolean;
}

/** The acknowledgement of a publish: the message is stored, or, on a live channel, sent. */
export interface Receipt {
  /** The message's id. */
  messageId: string;
  /** Its place; missing on live channels. */
  cursor?: string;
  /** Whether an attempt before was the one that got through, or its id was used already. */
  duplicate: boolean;
  /** What the application's publish hook answered. */
  result?: unknown;
}

/** Where a subscription begins; without, with what is published from now on. */
export interface ChannelOptions {
  /** After this place, as an earlier `channel.cursor` gave it. */
  cursor?: string;
  /** So many messages back (1 to 1,000), a duration (`'10m'`), or a time (RFC 3339). Counts when there is no cursor. */
  rewind?: number | string;
}
