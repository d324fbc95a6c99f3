// Faults between client and gateways, and of gateways: nothing is lost, doubled or out of order.

import { describe, expect, test } from 'vitest';
import { TRANSPORTS, client, counted, listen, publish, random, startNode, startProxy, startRedis, state, subscribed, until } from './lib/world.js';

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

describe.each(TRANSPORTS)('over %s', (transport) => {
  const options = { transports: [transport] };

  test('a node is killed: resume on the other, over what was published meanwhile', async () => {
    const redis = await startRedis();
    const [one, two] = [await startNode({ redis }), await startNode({ redis })];
    const proxy = await startProxy(one);
    const tw = client(proxy, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    for (const n of numbers(5)) await publish(two, 'room:1', { payload: n });
    await counted(room, 5);

    await one.kill();
    await until('the loss is noticed', () => tw.state.status !== 'open');
    for (const n of [5, 6, 7]) await publish(two, 'room:1', { payload: n });
    proxy.lead(two);
    await counted(room, 8);
    expect(room.payloads).toEqual(numbers(8));
    expect(room.gaps).toEqual([]);
  });

  test('a publish is tried across a kill, with the same id, and delivered once', async () => {
    const redis = await startRedis();
    const [one, two] = [await startNode({ redis }), await startNode({ redis })];
    const proxy = await startProxy(one);
    const tw = client(proxy, options);
    const watcher = listen(client(two), 'room:1');
    await subscribed(watcher);
    const room = tw.channel('room:1');
    await state(tw, 'open');
    // The node gets some of them and dies before it answers all.
    const receipts = numbers(40).map((n) => room.publish('n', n, { messageId: `m${n}`, timeout: 20_000 }));
    await until('some have arrived', () => watcher.payloads.length > 0);
    await one.kill();
    const late = room.publish('n', 40, { messageId: 'm40', timeout: 20_000 });
    proxy.lead(two);
    const all = await Promise.all([...receipts, late]);
    expect(all.map(({ messageId }) => messageId)).toEqual(numbers(41).map((n) => `m${n}`));
    await counted(watcher, 41);
    // Nothing comes twice: the next one is the next one.
    await room.publish('n', 'end');
    await counted(watcher, 42);
    expect(watcher.messages.map(({ messageId }) => messageId).slice(0, 41).sort()).toEqual(numbers(41).map((n) => `m${n}`).sort());
    expect(watcher.payloads[41]).toBe('end');
  });

  test('the line is cut: it comes back', async () => {
    const node = await startNode();
    const proxy = await startProxy(node);
    const tw = client(proxy, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    for (const n of numbers(4)) {
      proxy.cut();
      await publish(node, 'room:1', { payload: n });
      await counted(room, n + 1);
    }
    expect(room.payloads).toEqual(numbers(4));
    expect(room.gaps).toEqual([]);
  });

  test('the peer vanishes without a word: found by the heartbeat', async () => {
    const env = { TIDEWIRE_HEARTBEAT__SSE: '1s' };
    const node = await startNode({ env });
    const proxy = await startProxy(node);
    const tw = client(proxy, { ...options, heartbeat: 500, heartbeatTimeout: 500 });
    const room = listen(tw, 'room:1');
    await subscribed(room);
    proxy.stall();
    await publish(node, 'room:1', { payload: 1 });
    // A poll is found dead when its time is over; the page's other ways (online, visible) are quicker.
    const noticed = until('it is noticed', () => tw.state.status !== 'open', 40_000);
    await noticed;
    proxy.heal();
    await counted(room, 1);
    expect(room.payloads).toEqual([1]);
  }, 90_000);

  test('a node is drained: told when to leave, and leaves then', async () => {
    const redis = await startRedis();
    const [one, two] = [await startNode({ redis, env: { TIDEWIRE_DRAIN__TIME: '1s' } }), await startNode({ redis })];
    const proxy = await startProxy(one);
    const tw = client(proxy, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    proxy.lead(two);
    const drained = await fetch(`${one.admin}/drain`, { method: 'POST' });
    expect(drained.status).toBe(202);
    const published = numbers(20).map((n) => publish(two, 'room:1', { payload: n }));
    await Promise.all(published);
    expect((await one.ended(30_000)).code).toBe(0);
    await counted(room, 20);
    expect(room.payloads.slice().sort((a, b) => a - b)).toEqual(numbers(20));
    expect(room.gaps).toEqual([]);
    expect(tw.states.some(({ status }) => status !== 'open')).toBe(true);
  });

  test('hundreds of messages with random cuts: in order and once', async () => {
    const redis = await startRedis();
    const nodes = [await startNode({ redis }), await startNode({ redis })];
    const proxy = await startProxy(nodes[0]);
    const tw = client(proxy, { ...options, backoff: { base: 20, cap: 100 } });
    const [room, echo] = [listen(tw, 'room:1'), listen(tw, 'room:2')];
    await Promise.all([subscribed(room), subscribed(echo)]);
    const next = random(7);
    const own: Promise<any>[] = [];
    for (const n of numbers(400)) {
      await publish(nodes[n % 2], 'room:1', { payload: n });
      if (n % 4 === 0) own.push(echo.channel.publish('n', n, { timeout: 30_000 }));
      if (next() < 0.05) {
        proxy.lead(nodes[Math.floor(next() * 2)]);
        proxy.cut();
      }
    }
    await counted(room, 400);
    await Promise.all(own);
    await counted(echo, 100);
    expect(room.payloads).toEqual(numbers(400));
    expect(echo.payloads.slice().sort((a, b) => a - b)).toEqual(numbers(100).map((n) => n * 4));
    expect([...room.gaps, ...echo.gaps]).toEqual([]);
    expect(tw.errors).toEqual([]);
  });
});

test.each(['ws', 'sse'] as const)('the clients of a stopping node leave over %s at the times that they are told, and are back at once', async (transport) => {
  const redis = await startRedis();
  const [one, two] = [await startNode({ redis, env: { TIDEWIRE_DRAIN__TIME: '2s' } }), await startNode({ redis })];
  const proxy = await startProxy(one);
  // Whoever waited its back-off would be missing for up to a minute.
  const all = numbers(12).map(() => client(proxy, { transports: [transport], backoff: { base: 60_000, cap: 60_000 } }));
  await Promise.all(all.map((tw) => subscribed(listen(tw, 'room:1'))));
  proxy.lead(two);
  await fetch(`${one.admin}/drain`, { method: 'POST' });
  const left: number[] = [];
  for (const tw of all) {
    tw.on('state', (state) => {
      left.push(performance.now());
      // The node may end it a moment before its time.
      if (state.status === 'waiting') expect(state.until! - Date.now()).toBeLessThan(100);
    });
  }
  expect((await one.ended(30_000)).code).toBe(0);
  await until('all are back', () => all.every(({ state: { status } }) => status === 'open'), 5_000);
  for (const tw of all) expect(tw.errors).toEqual([]);
  expect(Math.max(...left) - Math.min(...left)).toBeGreaterThan(500);
});

test('WebSocket is blocked: SSE, then polling, and up again', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  proxy.blocked.add('/v1/ws');
  const tw = client(proxy, { upgradeAfter: 300 });
  const room = listen(tw, 'room:1');
  await state(tw, 'open', 'sse');
  await subscribed(room);
  await room.channel.publish('n', 0);
  await counted(room, 1);

  proxy.blocked.add('/v1/sse');
  proxy.cut();
  await publish(node, 'room:1', { payload: 1 });
  await state(tw, 'open', 'poll');
  await room.channel.publish('n', 2);
  await counted(room, 3);
  await until('better ones are tried', () => proxy.seen.get('/v1/ws')! > 3);
  await publish(node, 'room:1', { payload: 3 });

  proxy.blocked.clear();
  await state(tw, 'open', 'ws');
  await publish(node, 'room:1', { payload: 4 });
  await counted(room, 5);
  expect(room.payloads).toEqual(numbers(5));
  expect(room.gaps).toEqual([]);
  // Up step by step or at once, by which of them is tried first once nothing is blocked.
  const ways = tw.states.filter(({ status }) => status === 'open').map((state: any) => state.transport).join(' ');
  expect(ways).toMatch(/^sse poll( sse)? ws$/);
});

test('a WebSocket that opens and never says a word counts as blocked', async () => {
  const node = await startNode();
  class Mute extends EventTarget {
    onopen: any; onmessage: any; onclose: any; onerror: any;
    bufferedAmount = 0;
    constructor() {
      super();
      setTimeout(() => this.onopen?.());
    }
    send() {}
    close() {}
  }
  const tw = client(node, { WebSocket: Mute as any, connectTimeout: 300 });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  expect((await state(tw, 'open')).transport).toBe('sse');
});

test('Redis restarts: one gap for each stored channel, and it goes on', async () => {
  const redis = await startRedis();
  const node = await startNode({ redis });
  const tw = client(node);
  const room = listen(tw, 'room:1');
  await subscribed(room);
  await room.channel.publish('n', 1);
  await counted(room, 1);
  await redis.kill();
  await node.unready();
  const waiting = room.channel.publish('n', 2, { timeout: 20_000 });
  await redis.start();
  expect((await waiting).messageId).toBeTruthy();
  // In the new life of the data what comes after the gap arrives; whether the second one does is a matter of when.
  await until('the gap', () => room.gaps.length === 1);
  await room.channel.publish('n', 3);
  await until('the third', () => room.payloads.includes(3));
  expect(room.payloads.filter((n) => n !== 2)).toEqual([1, 3]);
  expect(room.gaps.length).toBe(1);
});

test('a live channel tells a gap for the time that it was away', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const tw = client(proxy);
  const live = listen(tw, 'live:1');
  await subscribed(live);
  proxy.cut();
  await subscribed(live, 2);
  await publish(node, 'live:1', { payload: 1 });
  await counted(live, 1);
  expect(live.gaps).toEqual([{ channel: 'live:1' }]);
});

test('offline: the queue has a bound, time runs out, and what is left goes out', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const other = await startProxy(node);
  // Nobody is there.
  other.end();
  proxy.lead(other);
  const tw = client(proxy, { maxQueue: 3 });
  const room = tw.channel('room:1');
  const heard = listen(client(node), 'room:1');
  await subscribed(heard);
  const late = room.publish('n', 0, { timeout: 300, messageId: 'late' });
  const kept = [room.publish('n', 1), room.publish('n', 2)];
  await expect(room.publish('n', 3)).rejects.toMatchObject({ name: 'TidewireError', code: 'queue_full' });
  await expect(late).rejects.toMatchObject({ code: 'unavailable', messageId: 'late' });
  room.send('n', 'dropped');
  proxy.lead(node);
  await Promise.all(kept);
  await counted(heard, 2);
  expect(heard.payloads).toEqual([1, 2]);
});

test('sent, but not acknowledged in time: the outcome is unknown', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const tw = client(proxy);
  await state(tw, 'open');
  proxy.stall();
  await expect(tw.channel('room:1').publish('n', 1, { timeout: 300 })).rejects.toMatchObject({ code: 'timeout' });
});

test('maxAttempts: it gives up, with the reason; connect begins again', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const tw = client(proxy, { maxAttempts: 2 });
  await state(tw, 'open');
  await node.kill();
  const { reason } = await state(tw, 'closed');
  expect(reason.code).toBe('max_attempts');
  expect(tw.states.filter(({ status }) => status === 'waiting').length).toBe(2);
  const again = await startNode();
  proxy.lead(again);
  tw.connect();
  await state(tw, 'open');
});

test('the delay before an attempt is random below a bound that doubles up to a cap', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  await node.kill();
  const tw = client(proxy, { transports: ['ws'], backoff: { base: 40, cap: 160 }, maxAttempts: 6 });
  const waits: number[] = [];
  tw.on('state', (state) => {
    if (state.status === 'waiting') waits.push(state.until! - Date.now());
  });
  await state(tw, 'closed');
  expect(waits.length).toBe(6);
  for (const [n, wait] of waits.entries()) expect(wait).toBeLessThanOrEqual(Math.min(160, 40 * 2 ** n) + 1);
  expect(new Set(waits.map(Math.round)).size).toBeGreaterThan(2);
});
