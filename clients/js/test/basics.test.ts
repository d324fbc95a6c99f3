// One gateway, no faults: what each transport does.

import { describe, expect, test, vi } from 'vitest';
import WebSocket from 'ws';
import { type Options, TidewireError } from '../src/index.js';
import { packed } from '../src/msgpack.js';
import { TRANSPORTS, client, counted, listen, publish, startNode, startRedis, state, subscribed, until } from './lib/world.js';

/** A WebSocket with MessagePack is a way of its own. */
describe.each([...TRANSPORTS, 'packed'] as const)('over %s', (way) => {
  const transport = way === 'packed' ? 'ws' : way;
  const options: Options = { transports: [transport], ...(way === 'packed' && { WebSocket: packed(WebSocket as any) }) };

  test('subscribes, publishes, receives its own and what others publish', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const room = listen(tw, 'room:42');
    const created: unknown[] = [];
    room.channel.on('created', (payload) => created.push(payload));
    await subscribed(room);
    expect((await state(tw, 'open')).transport).toBe(transport);

    const receipt = await room.channel.publish('created', { n: 1 });
    expect(receipt).toMatchObject({ duplicate: false, messageId: expect.stringMatching(/^\d+-\d+$/), cursor: expect.any(String) });
    await publish(node, 'room:42', { event: 'other', payload: [2, 'ü\u2028'] });
    await publish(node, 'room:42', { payload: null });
    await counted(room, 3);
    expect(room.payloads).toEqual([{ n: 1 }, [2, 'ü\u2028'], null]);
    expect(created).toEqual([{ n: 1 }]);
    expect(room.messages[0]).toMatchObject({ channel: 'room:42', event: 'created', messageId: receipt.messageId, cursor: receipt.cursor });
    expect(room.messages[0]).not.toHaveProperty('type');
    expect(room.messages[2]!.event).toBe('message');
    expect(room.channel.cursor).toBe(room.messages[2]!.cursor);
    expect(room.gaps).toEqual([]);
  });

  test('the same messageId is delivered once, with another body it is a conflict', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    const first = await room.channel.publish('e', 1, { messageId: 'one' });
    expect(await room.channel.publish('e', 1, { messageId: 'one' })).toEqual({ ...first, duplicate: true });
    const refused = await room.channel.publish('e', 2, { messageId: 'one' }).catch((error) => error);
    expect(refused).toBeInstanceOf(TidewireError);
    expect(refused).toMatchObject({ code: 'conflict', messageId: 'one' });
    await room.channel.publish('e', 3);
    await counted(room, 2);
    expect(room.payloads).toEqual([1, 3]);
  });

  test('what is published together arrives in order', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    const all = Array.from({ length: 300 }, (_, n) => room.channel.publish('n', n));
    expect((await Promise.all(all)).every(({ duplicate }) => !duplicate)).toBe(true);
    await counted(room, 300);
    expect(room.payloads).toEqual(all.map((_, n) => n));
  });

  test('a channel that is joined later, one that is left, one that is joined again', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const [a, b] = [listen(tw, 'a'), listen(tw, 'b')];
    await Promise.all([subscribed(a), subscribed(b)]);
    const c = listen(tw, 'c');
    await subscribed(c);
    a.channel.leave();
    for (const name of ['a', 'b', 'c']) await publish(node, name, { payload: name });
    await Promise.all([counted(b, 1), counted(c, 1)]);
    // It goes on from where it was left.
    const again = listen(tw, 'a', { cursor: a.channel.cursor });
    await counted(again, 1);
    expect([a, b, c, again].map(({ payloads }) => payloads)).toEqual([[], ['b'], ['c'], ['a']]);
    expect([a, b, c, again].flatMap(({ gaps }) => gaps)).toEqual([]);
  });

  test('rewind and cursor', async () => {
    const node = await startNode();
    for (let n = 0; n < 10; n += 1) await publish(node, 'past', { payload: n });
    for (let n = 0; n < 3; n += 1) await publish(node, 'past:2', { payload: n });
    const tw = client(node, options);
    const [past, other, present] = [listen(tw, 'past', { rewind: 3 }), listen(tw, 'past:2', { rewind: 1 }), listen(tw, 'present')];
    await counted(past, 3);
    await counted(other, 1);
    await subscribed(present);
    expect([past.payloads, other.payloads]).toEqual([[7, 8, 9], [2]]);
    const { cursor } = past.messages[0]!;
    const resumed = listen(client(node, options), 'past', { cursor });
    await counted(resumed, 2);
    expect(resumed.payloads).toEqual([8, 9]);
    expect(resumed.subscribed[0].recovered).toBe(true);
  });

  test('a cursor beyond the history is a gap, then what is kept', async () => {
    const redis = await startRedis();
    // A node holds for a while what it has delivered: the other one has not.
    const [node, other] = [await startNode({ redis }), await startNode({ redis })];
    const before = listen(client(node, options), 'short:1');
    await subscribed(before);
    await publish(node, 'short:1', { payload: 'first' });
    await counted(before, 1);
    const { cursor } = before.channel;
    // Redis trims in steps: many more than it is to keep.
    for (let n = 0; n < 300; n += 1) await publish(node, 'short:1', { payload: n });
    const late = listen(client(other, options), 'short:1', { cursor });
    await until('the last one', () => late.payloads.includes(299));
    expect(late.payloads.length).toBeLessThan(300);
    expect(late.payloads).toEqual(late.payloads.map((_, n) => late.payloads[0] + n));
    expect(late.gaps).toEqual([{ channel: 'short:1', after: cursor, cursor: expect.any(String) }]);
  });

  test('a cursor that is none is a gap, not an error', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const [room, other] = [listen(tw, 'room:1', { cursor: 'nonsense' }), listen(tw, 'room:2')];
    await subscribed(room);
    await subscribed(other);
    await publish(node, 'room:1', { payload: 1 });
    await counted(room, 1);
    expect(room.gaps).toEqual([{ channel: 'room:1', after: 'nonsense' }]);
    expect([room.denied, other.denied, other.gaps]).toEqual([[], [], []]);
  });

  test('forty channels', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const all = Array.from({ length: 40 }, (_, n) => listen(tw, `many:${n}`));
    await Promise.all(all.map((one) => subscribed(one)));
    await Promise.all(all.map(({ channel }, n) => channel.publish('n', n)));
    await Promise.all(all.map((one) => counted(one, 1)));
    expect(all.map(({ payloads }) => payloads)).toEqual(all.map((_, n) => [n]));
  });

  test('a handler that throws stops nothing and is reported', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const channel = tw.channel('room:1');
    channel.on('e', (payload) => { throw new Error(`on ${payload}`); });
    const room = listen(tw, 'room:1');
    await subscribed(room);
    for (let n = 0; n < 3; n += 1) await publish(node, 'room:1', { event: 'e', payload: n });
    await counted(room, 3);
    expect(tw.errors.map(String)).toEqual(['Error: on 0', 'Error: on 1', 'Error: on 2']);
  });

  test('echo: false does not come back', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const room = listen(tw, 'room:1');
    await subscribed(room);
    await room.channel.publish('e', 'mine', { echo: false });
    await room.channel.publish('e', 'ours');
    await until('ours', () => room.payloads.includes('ours'));
    // A poll has no session that could be left out.
    expect(room.payloads).toEqual(transport === 'poll' ? ['mine', 'ours'] : ['ours']);
  });

  test('bytes, names of one\'s own, and a large message', async () => {
    const node = await startNode();
    const tw = client(node, options);
    const room = listen(tw, 'raum/ü:1');
    const own: unknown[] = [];
    room.channel.on('gap', (gap) => own.push(gap));
    await subscribed(room);
    await fetch(`${node.url}/v1/channels/${encodeURIComponent('raum/ü:1')}/messages`, {
      method: 'POST', body: new Uint8Array([0, 255, 1]), headers: { 'content-type': 'application/octet-stream' },
    });
    await room.channel.publish('gap', { spoofed: true });
    const text = 'ü"\\'.repeat(8_000);
    await room.channel.publish('e', text);
    await counted(room, 3);
    expect(room.payloads).toEqual([new Uint8Array([0, 255, 1]), { spoofed: true }, text]);
    expect(own).toEqual([]);
    // Over the limit: the message is refused, and the connection goes on.
    const refused = await room.channel.publish('e', 'x'.repeat(70_000)).catch((error) => error);
    expect(refused.code).toBe('too_large');
    await room.channel.publish('e', 'after');
    await counted(room, 4);
    expect(room.payloads[3]).toBe('after');
    expect(room.gaps).toEqual([]);
  });
});

test('a live channel over ws and sse; while polling it is denied', async () => {
  const node = await startNode();
  for (const transport of TRANSPORTS) {
    const tw = client(node, { transports: [transport] });
    const [live, stored] = [listen(tw, 'live:1'), listen(tw, 'stored')];
    await subscribed(stored);
    if (transport === 'poll') {
      await until('denied', () => live.denied.length === 1);
      expect(live.denied).toEqual([{ channel: 'live:1', code: 'no_history' }]);
    } else {
      await subscribed(live);
      live.channel.send('tick', 1);
      await counted(live, 1);
      expect(live.messages[0]).not.toHaveProperty('cursor');
      expect(live.channel.cursor).toBeUndefined();
    }
    tw.close();
  }
});

test('a channel that nobody listens to is not subscribed', async () => {
  const node = await startNode();
  const tw = client(node);
  expect((await tw.channel('only:published').publish('e', 1)).duplicate).toBe(false);
  const { channels } = await (await fetch(`${node.url}/v1/channels`)).json();
  expect(channels).toEqual([]);
});

test('names are checked, and one name is one object', async () => {
  const tw = client({ url: 'http://127.0.0.1:9' });
  for (const name of ['', 'a b', 'a*', ':x', '.', '..', 'a,b', 'a\n']) expect(() => tw.channel(name)).toThrow(TypeError);
  expect(tw.channel('a')).toBe(tw.channel('a'));
});

test('close rejects what waits, and connect begins again', async () => {
  const node = await startNode();
  const tw = client(node);
  const room = listen(tw, 'room:1');
  await subscribed(room);
  tw.close();
  expect(tw.state).toEqual({ status: 'closed', reason: { code: 'closed' } });
  await expect(room.channel.publish('e', 1)).rejects.toMatchObject({ code: 'closed' });
  await publish(node, 'room:1', { payload: 'meanwhile' });
  tw.connect();
  await counted(room, 1);
  expect(room.payloads).toEqual(['meanwhile']);
  expect(room.gaps).toEqual([]);
});

test('without an error handler a fault is reported to the console', async () => {
  const node = await startNode();
  const { connect } = await import('../src/index.js');
  const shown = vi.spyOn(console, 'error').mockImplementation(() => {});
  const tw = connect(node.url, { transports: ['sse'] });
  const room = tw.channel('room:1');
  room.on('e', () => { throw new Error('mine'); });
  const heard = listen(tw, 'room:1');
  await subscribed(heard);
  await room.publish('e', 1);
  await counted(heard, 1);
  tw.close();
  expect(String(shown.mock.calls[0]?.[0])).toBe('Error: mine');
  shown.mockRestore();
});
