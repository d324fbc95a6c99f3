// What the tests of the client start: real gateways, a real Redis, a proxy with faults, clients that end with the test.

import { onTestFinished } from 'vitest';
import WebSocket from 'ws';
import { Node } from '../../../tests/lib/node.mjs';
import { startRedis as start } from '../../../tests/lib/redis.mjs';
import { until } from '../../../tests/lib/wait.mjs';
import { type Channel, type Client, type Gap, type Message, type Options, type State, connect } from '../../src/index.js';
import { Proxy } from './proxy.mjs';

export { until };
export { publish } from '../../../tests/lib/publish.mjs';

/** What the shared helpers know a test by. */
const here = () => ({ after: (cleanup: () => unknown) => onTestFinished(async () => void (await cleanup())) });

const NAMESPACES = {
  TIDEWIRE_NAMESPACES__DEFAULT__HISTORY_SIZE: '1000',
  TIDEWIRE_NAMESPACES__LIVE__HISTORY_SIZE: '0',
  TIDEWIRE_NAMESPACES__SHORT__HISTORY_SIZE: '5',
};

export const startRedis = () => start(here());

/** A gateway that ends with the test: default channels are stored, `live:` is live, `short:` keeps five. */
export async function startNode({ redis, env = {}, listen }: { redis?: any; env?: Record<string, string>; listen?: string } = {}): Promise<any> {
  const node = new Node({ flags: redis ? ['--redis', redis.url] : [], env: { ...NAMESPACES, ...env } } as any);
  onTestFinished(() => node.end());
  await node.start(listen);
  return node;
}

/** A proxy in front of a node. */
export async function startProxy(node: any): Promise<Proxy> {
  const proxy = await new Proxy(node).start();
  onTestFinished(() => proxy.end());
  return proxy;
}

/** A client with short times, its states and errors noted. */
export interface Watched extends Client {
  states: State[];
  errors: unknown[];
}

export function client(at: { url: string }, options: Options = {}): Watched {
  const made = connect(at.url, {
    WebSocket: WebSocket as any,
    backoff: { base: 50, cap: 500 },
    connectTimeout: 3_000,
    heartbeatTimeout: 1_000,
    ...options,
  }) as Watched;
  made.states = [made.state];
  made.errors = [];
  made.on('state', (state) => made.states.push(state));
  made.on('error', (error) => made.errors.push(error));
  onTestFinished(() => made.close());
  return made;
}

/** Waits for a state; gives it. */
export async function state(client: Client, status: State['status'], transport?: string): Promise<any> {
  const fits = () => client.state.status === status && (!transport || (client.state as any).transport === transport);
  await until(`${status} ${transport ?? ''}, not ${JSON.stringify(client.state)}`, fits, 20_000);
  return client.state;
}

/** What a channel hears. */
export interface Heard {
  channel: Channel;
  payloads: any[];
  messages: Message[];
  gaps: Gap[];
  subscribed: any[];
  denied: any[];
}

/** Listens to everything on a channel. */
export function listen(client: Client, name: string, options = {}): Heard {
  const channel = client.channel(name, options);
  const heard: Heard = { channel, payloads: [], messages: [], gaps: [], subscribed: [], denied: [] };
  channel.on('*', (payload, message) => {
    heard.payloads.push(payload);
    heard.messages.push(message);
  });
  channel.on('gap', (gap) => heard.gaps.push(gap));
  channel.on('subscribed', (subscribed) => heard.subscribed.push(subscribed));
  channel.on('denied', (denied) => heard.denied.push(denied));
  return heard;
}

/** Waits until the channel is subscribed for the n-th time. */
export const subscribed = (heard: Heard, times = 1) => until('subscribed', () => heard.subscribed.length >= times);

/** Waits until so many messages were heard. */
export const counted = (heard: Heard, count: number) =>
  until(`${count} messages`, () => heard.payloads.length >= count, 30_000);

/** Numbers, the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let at = seed;
  return () => {
    at = (at + 0x6d2b79f5) | 0;
    let mixed = Math.imul(at ^ (at >>> 15), 1 | at);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const TRANSPORTS = ['ws', 'sse', 'poll'] as const;
