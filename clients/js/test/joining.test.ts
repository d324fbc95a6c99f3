// What a client publishes to a channel after it began to listen there comes back to it, however fresh the channel is.

import { once } from 'node:events';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { packed } from '../src/msgpack.js';
import { client, listen, startNode, startProxy, startRedis, state, subscribed, until } from './lib/world.js';

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

const WAYS = [['ws', {}], ['packed', { WebSocket: packed(WebSocket as any) }], ['sse', {}], ['poll', {}]] as const;

describe.each(WAYS)('over %s', (way, more) => {
  const transport = way === 'packed' ? 'ws' : way;
  const options = { transports: [transport], ...more };
  // While polling there are no live channels.
  const kinds = way === 'poll' ? ['room'] : ['room', 'live'];

  test('many fresh channels: on and publish at once, at the start and later', async () => {
    const redis = await startRedis();
    const node = await startNode({ redis });
    for (const round of numbers(6)) {
      const tw = client(node, options);
      const begin = async (name: string) => {
        const all = numbers(5).map((n) => {
          const heard = listen(tw, `${kinds[n % kinds.length]}:${name}:${round}:${n}`);
          return { heard, receipt: heard.channel.publish('n', n) };
        });
        await Promise.all(all.map(({ receipt }) => receipt));
        const deaf = () => all.filter(({ heard }) => heard.payloads.length === 0).map(({ heard }) => heard.channel.name);
        await until('every echo', () => deaf().length === 0).catch((error) => {
          throw new Error(`${error.message}; not on ${deaf()}`);
        });
        expect(all.map(({ heard }) => heard.payloads)).toEqual(numbers(5).map((n) => [n]));
      };
      // Before there is a connection, where there is one, and many at a time.
      await begin('first');
      for (const step of numbers(4)) await begin(`step-${step}`);
      await Promise.all(numbers(8).map((step) => begin(`together-${step}`)));
      tw.close();
    }
  }, 60_000);

  test('after a break, on a live channel and on one that was never there yet', async () => {
    const redis = await startRedis();
    const node = await startNode({ redis });
    const proxy = await startProxy(node);
    const tw = client(proxy, options);
    const live = listen(tw, `${kinds.at(-1)}:1`);
    await subscribed(live);
    for (const n of numbers(5)) {
      const broken = new Promise<void>((resolve) => {
        const off = tw.on('state', () => {
          off();
          resolve();
        });
      });
      proxy.cut();
      await broken;
      const fresh = listen(tw, `${kinds.at(-1)}:fresh:${n}`);
      await Promise.all([live.channel.publish('n', n, { timeout: 20_000 }), fresh.channel.publish('n', n, { timeout: 20_000 })]);
      await until('both echoes', () => live.payloads.length > n && fresh.payloads.length > 0);
    }
    expect(live.payloads).toEqual(numbers(5));
  }, 60_000);
});

test('a channel that is refused, or left, holds up no message', async () => {
  const redis = await startRedis();
  const node = await startNode({ redis, env: { TIDEWIRE_NAMESPACES__SHUT__SUBSCRIBE: 'nobody' } });
  const tw = client(node);
  const shut = listen(tw, 'shut:1');
  expect((await shut.channel.publish('n', 1)).messageId).toBeTruthy();
  expect(shut.denied).toEqual([{ channel: 'shut:1', code: 'forbidden' }]);
  const left = listen(tw, 'left:1');
  const receipt = left.channel.publish('n', 1);
  left.channel.leave();
  expect((await receipt).messageId).toBeTruthy();
});

test.each(WAYS)('over %s a channel that cannot be had for now: its messages wait, and come back', async (way, more) => {
  const redis = await startRedis();
  const node = await startNode({ redis });
  const tw = client(node, { transports: [way === 'packed' ? 'ws' : way], ...more });
  await subscribed(listen(tw, 'room:before'));
  await redis.kill();
  await node.unready();
  const fresh = listen(tw, 'room:fresh');
  const receipt = fresh.channel.publish('n', 1, { timeout: 40_000 });
  // It is given up before the broker is back: it was never sent.
  await expect(fresh.channel.publish('n', 2, { timeout: 100 })).rejects.toMatchObject({ code: 'unavailable' });
  await redis.start();
  expect((await receipt).duplicate).toBe(false);
  await until('its echo', () => fresh.payloads.length === 1);
  expect(fresh.payloads).toEqual([1]);
}, 90_000);

/** A WebSocket that has no answer to `subscribe` until it is let go. */
function slow(name: string) {
  const held: (() => void)[] = [];
  class Slow extends WebSocket {
    override send(data: any) {
      const frame = JSON.parse(data);
      if (frame.type === 'subscribe' && frame.channel === name) held.push(() => super.send(data));
      else super.send(data);
    }
  }
  return { held, Slow: Slow as any };
}

test('a look at a better transport holds nothing up', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  proxy.blocked.add('/v1/ws');
  const tw = client(proxy, { upgradeAfter: 50 });
  const live = listen(tw, 'live:1');
  await subscribed(live);
  await until('it has looked', () => proxy.seen.get('/v1/ws')! > 3);
  await live.channel.publish('n', 1);
  await until('its echo', () => live.payloads.length === 1);
  expect(tw.state).toMatchObject({ transport: 'sse' });
});

/** Not a gateway: it cannot subscribe a live channel on its first connection, which breaks, and can on the second one. */
async function twoFaced() {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const subscribed: number[] = [];
  let connections = 0;
  server.on('connection', (socket) => {
    const n = connections += 1;
    const say = (frame: object) => socket.send(JSON.stringify(frame));
    say({ type: 'welcome', session: 's', heartbeat: 25, channels: [] });
    socket.on('message', (data) => {
      const { type, id } = JSON.parse(String(data));
      if (type === 'subscribe') subscribed.push(n);
      if (n > 1) return say({ type: 'ack', id, messageId: 'm' });
      say({ type: 'error', id, code: 'unavailable', message: 'not now', retry: 200 });
      socket.close(1012);
      return undefined;
    });
  });
  return { url: `http://127.0.0.1:${(server.address() as any).port}`, subscribed };
}

test('what was to be tried again is not, once another connection has it', async () => {
  const gateway = await twoFaced();
  const timers = vi.spyOn(globalThis, 'setTimeout');
  onTestFinished(() => void timers.mockRestore());
  const tw = client(gateway, { transports: ['ws'] });
  const live = listen(tw, 'live:1');
  await subscribed(live);
  // The timer of the first connection's refusal, as if it was late.
  const again = timers.mock.calls.find(([, ms]) => ms === 200)![0] as () => void;
  again();
  expect((await live.channel.publish('n', 1, { timeout: 5_000 })).messageId).toBeTruthy();
  expect(gateway.subscribed).toEqual([1, 2]);
});

test('only what is for that channel waits', async () => {
  const node = await startNode();
  const { held, Slow } = slow('room:slow');
  const tw = client(node, { WebSocket: Slow });
  const room = listen(tw, 'room:slow');
  const order: string[] = [];
  const waiting = [1, 2].map((n) => room.channel.publish('n', n).then(() => order.push(`slow ${n}`)));
  await tw.channel('room:other').publish('n', 1);
  order.push('other');
  await state(tw, 'open');
  held.splice(0).forEach((go) => go());
  await Promise.all(waiting);
  expect(order).toEqual(['other', 'slow 1', 'slow 2']);
  await until('both', () => room.payloads.length === 2);
  expect(room.payloads).toEqual([1, 2]);
});

test('a channel with a place need not wait: nothing behind it can be missed', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const { held, Slow } = slow('room:1');
  const tw = client(proxy, { WebSocket: Slow });
  const room = listen(tw, 'room:1');
  await until('it asks', () => held.length === 1);
  held.pop()!();
  await subscribed(room);
  proxy.cut();
  await until('it asks again', () => held.length === 1);
  await room.channel.publish('n', 1);
  expect(room.subscribed.length).toBe(1);
  held.pop()!();
  await until('its echo', () => room.payloads.length === 1);
  expect(room.gaps).toEqual([]);
});
