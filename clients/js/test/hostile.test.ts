// Random faults, from a seed that is named when it fails: whatever happens to lines and nodes, and over whichever transports
// a client gets through meanwhile, its handlers are called once for each message, in order, and for all of them.
//
//   SEEDS=100-120 npx vitest run test/hostile.test.ts

import { expect, test } from 'vitest';
import WebSocket from 'ws';
import { TidewireError, type Transport } from '../src/index.js';
import { packed } from '../src/msgpack.js';
import { type Heard, TRANSPORTS, client, listen, random, startNode, startProxy, startRedis, subscribed, until } from './lib/world.js';

const [FIRST, LAST] = (process.env.SEEDS ?? '1-6').split('-').map(Number) as [number, number];
const SEEDS = Array.from({ length: (LAST ?? FIRST) - FIRST + 1 }, (_, n) => FIRST + n);
/** How many faults there are, and how long each lasts at most (ms). */
const FAULTS = 14;
const PAUSE = 350;
const PATHS: Record<Transport, string> = { ws: '/v1/ws', sse: '/v1/sse', poll: '/v1/poll' };

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Publishes a number from outside, until a node has taken it; each once, one after the other. */
async function publishFrom(nodes: any[], n: number): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`${nodes[attempt % nodes.length].url}/v1/channels/room:1/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ event: 'number', payload: n, messageId: `outside-${n}` }),
      signal: AbortSignal.timeout(3_000),
    }).catch(() => undefined);
    if (answer?.ok) return;
    await sleep(20);
  }
}

/** A client whose line is at the mercy of chance, and what its handlers have heard. */
async function startVictim(nodes: any[], transports: readonly Transport[], isPacked: boolean, next: () => number) {
  const proxy = await startProxy(nodes[0]);
  const tw = client(proxy, {
    transports, upgradeAfter: 150, backoff: { base: 20, cap: 100 }, connectTimeout: 700, heartbeat: 300, heartbeatTimeout: 400,
    ...(isPacked && { WebSocket: packed(WebSocket as any) }),
  });
  const room = listen(tw, 'room:1');
  // Heard by the event, too; and the first handler throws every now and then.
  const numbers: unknown[] = [];
  room.channel.on('number', () => {
    if (next() < 0.1) throw new Error('a handler');
  });
  room.channel.on('number', (payload) => numbers.push(payload));
  await subscribed(room);
  return { proxy, tw, room, numbers };
}

type Victim = Awaited<ReturnType<typeof startVictim>>;

/** One fault of a line, that the end of the test mends. */
function harm({ proxy, tw }: Victim, nodes: any[], next: () => number): void {
  const one = Math.floor(next() * 6);
  if (one === 0) proxy.cut();
  else if (one === 1) proxy.stall();
  else if (one === 2) proxy.heal();
  else if (one === 3) proxy.lead(nodes[Math.floor(next() * nodes.length)]);
  else if (one === 4) proxy.blocked = new Set(TRANSPORTS.slice(0, Math.floor(next() * 3)).map((name) => PATHS[name]));
  // As a page that is frozen, or a user who goes and comes back.
  else if (next() < 0.5) tw.close();
  tw.connect();
  if (one > 2) proxy.cut();
}

function check(room: Heard, stored: string[]): void {
  const ids = room.messages.map(({ messageId }) => messageId!);
  expect(ids.filter((id, n) => ids.indexOf(id) !== n), 'twice').toEqual([]);
  const cursors = room.messages.map(({ cursor }) => cursor!.split('.')[0]!.split('-').map(Number) as [number, number]);
  const backwards = cursors.filter(([ms, n], at) => at > 0 && (ms - cursors[at - 1]![0] || n - cursors[at - 1]![1]) <= 0);
  expect(backwards, 'out of order').toEqual([]);
  expect(room.gaps, 'a gap').toEqual([]);
  expect(ids, 'all that is stored').toEqual(stored);
}

test.each(SEEDS)('whatever happens, once, in order, and all of it: seed %i', async (seed) => {
  const next = random(seed);
  const redis = await startRedis();
  const nodes = [await startNode({ redis }), await startNode({ redis })];
  const victims = [
    await startVictim(nodes, TRANSPORTS, false, next),
    await startVictim(nodes, TRANSPORTS, true, next),
    await startVictim(nodes, ['sse', 'poll'], false, next),
    await startVictim(nodes, ['poll'], false, next),
  ];

  let busy = true;
  let sent = 0;
  const outside = (async () => {
    while (busy) {
      await publishFrom(nodes, sent);
      sent += 1;
      await sleep(5);
    }
  })();
  /** What clients publish, and what became of it. */
  const own = new Map<string, Promise<string>>();
  const talk = setInterval(() => {
    const { room } = victims[own.size % victims.length]!;
    const messageId = `own-${own.size}`;
    const timeout = next() < 0.2 ? 100 : 30_000;
    own.set(messageId, room.channel.publish('said', own.size, { messageId, timeout }).then(
      () => 'acked', (error: TidewireError) => String(error.code)));
  }, 25);

  for (let n = 0; n < FAULTS; n += 1) {
    await sleep(next() * PAUSE);
    if (next() < 0.2) await nodes[Math.floor(next() * 2)].restart();
    else harm(victims[Math.floor(next() * victims.length)]!, nodes, next);
  }
  clearInterval(talk);
  busy = false;
  await outside;
  for (const { proxy, tw } of victims) {
    proxy.heal();
    proxy.blocked.clear();
    proxy.cut();
    tw.connect();
  }

  const fates = new Map<string, string>();
  for (const [id, fate] of own) fates.set(id, await fate);
  await publishFrom(nodes, sent);
  // What a client gave up on may still have been under way.
  let stored: string[] = [];
  const history = async () => {
    const { messages } = await (await fetch(`${nodes[0].url}/v1/channels/room:1/messages?limit=1000`)).json();
    stored = messages.map(({ messageId }: any) => messageId);
    return stored.length;
  };
  for (const { room, numbers, tw } of victims) {
    await until('all of it', async () => room.messages.length >= await history(), 40_000).catch((error) => {
      throw new Error(`${error.message}; ${room.messages.length} of ${stored.length}; ${JSON.stringify(tw.states.slice(-6))}`);
    });
    expect(stored.length).toBeLessThan(1_000);
    check(room, stored);
    expect(numbers).toEqual(Array.from({ length: sent + 1 }, (_, n) => n));
  }
  for (const [id, fate] of fates) {
    const times = stored.filter((one) => one === id).length;
    // What was acknowledged is there; what is said never to have been sent is not; of the others nobody knows.
    expect({ id, fate, times }).toEqual({ id, fate, times: fate === 'acked' ? 1 : fate === 'unavailable' ? 0 : times });
    expect(['acked', 'unavailable', 'timeout', 'closed']).toContain(fate);
  }
  // They were called each time, and nothing else was at fault.
  for (const { tw } of victims) expect(new Set(tw.errors.map(String))).toEqual(new Set(tw.errors[0] ? ['Error: a handler'] : []));
}, 120_000);
