// The npm package `ws` as a client: the protocol as a program in Node sees it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { sharedNode, startNode } from './lib/node.mjs';
import { publish } from './lib/publish.mjs';
import { Socket, refused } from './lib/socket.mjs';
import { soon } from './lib/wait.mjs';

const node = sharedNode();

test('welcome, subscribe, publish, unsubscribe', async (t) => {
  const socket = await Socket.open(t, node);
  const { session, ...welcome } = socket.welcome;
  assert.match(session, /^\S+$/);
  assert.deepEqual(welcome, { type: 'welcome', heartbeat: 25, channels: [] });

  assert.deepEqual(await socket.ask({ type: 'subscribe', id: 1, channel: 'ws:basic' }), { type: 'ack', id: 1 });
  const { messageId, ...ack } = await socket.ask(
    { type: 'publish', id: 'two', channel: 'ws:other', payload: null });
  assert.deepEqual(ack, { type: 'ack', id: 'two' });
  // A publish without an id is given a UUID of version 7.
  assert.match(messageId, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/);

  const sent = { event: 'headline', payload: { title: 'Grüße 🌊', n: [1.5e300, -0.1, null] }, messageId: 'm-1' };
  assert.deepEqual(await publish(node, 'ws:basic', sent), { messageId: 'm-1' });
  const { timestamp, ...message } = await socket.next();
  assert.deepEqual(message, { type: 'message', channel: 'ws:basic', ...sent });
  assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 60_000, timestamp);

  assert.deepEqual(await socket.ask({ type: 'unsubscribe', id: 3, channel: 'ws:basic' }), { type: 'ack', id: 3 });
  await publish(node, 'ws:basic', { payload: 'not for us' });
  // Answers and messages share one order, so the pong would come behind the message.
  socket.send({ type: 'ping', id: 4 });
  assert.deepEqual(await socket.next(), { type: 'pong', id: 4 });
});

test('a publish over one WebSocket reaches others, and says from which session', async (t) => {
  const channels = ['ws:others'];
  const [sender, other] = await Promise.all([1, 2].map(() => Socket.open(t, node, { channels })));
  const publishing = { type: 'publish', channel: 'ws:others', event: 'said' };
  sender.send({ ...publishing, id: 1, payload: 'echoed' });
  for (const socket of [sender, other]) {
    const message = await socket.message();
    assert.equal(message.payload, 'echoed');
    assert.equal(message.from.session, sender.welcome.session);
  }
  await sender.ask({ ...publishing, id: 2, payload: 'not to me', echo: false });
  await sender.ask({ ...publishing, id: 3, payload: 'to all' });
  assert.equal((await other.message()).payload, 'not to me');
  assert.equal((await other.message()).payload, 'to all');
  // On the sender's own stream the acks and the echo may come in any order; the silent one is not
  // among them.
  sender.send({ ...publishing, id: 4, payload: 'last' });
  const seen = [];
  await sender.find((frame) => {
    if (frame.type === 'message') seen.push(frame.payload);
    return frame.payload === 'last';
  });
  assert.ok(!seen.includes('not to me'), seen.join());
});

test('exclude leaves out the session that it names', async (t) => {
  const channels = ['ws:exclude'];
  const [left, other] = await Promise.all([1, 2].map(() => Socket.open(t, node, { channels })));
  await publish(node, 'ws:exclude', { payload: 1, exclude: left.welcome.session });
  await publish(node, 'ws:exclude', { payload: 2 });
  assert.equal((await left.message()).payload, 2);
  assert.equal((await other.message()).payload, 1);
  assert.equal((await other.message()).payload, 2);
});

test('channels of the address are confirmed in the welcome, each once', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['ws:a', 'ws:b', 'ws:a', 'ws:with/slash'] });
  const names = socket.welcome.channels.map(({ channel }) => channel);
  assert.deepEqual(names.sort(), ['ws:a', 'ws:b', 'ws:with/slash']);
  for (const channel of names) {
    await publish(node, channel, { payload: channel });
    const message = await socket.next();
    assert.deepEqual([message.channel, message.payload], [channel, channel]);
  }
  const again = await socket.ask({ type: 'subscribe', id: 9, channel: 'ws:a' });
  assert.deepEqual([again.type, again.code], ['error', 'already_subscribed']);
});

test('ping and pong frames', async (t) => {
  const socket = await Socket.open(t, node);
  for (const payload of ['', 'x', 'p'.repeat(125)]) {
    const pong = once(socket.raw, 'pong');
    socket.raw.ping(payload);
    assert.equal((await soon('a pong', pong))[0].toString(), payload);
  }
});

test('the node pings; who does not answer is closed', async (t) => {
  const env = { TIDEWIRE_HEARTBEAT__WEBSOCKET: '2s', TIDEWIRE_HEARTBEAT__PONG: '1s' };
  const quick = await startNode(t, { env });
  const answering = await Socket.open(t, quick);
  assert.equal(answering.welcome.heartbeat, 2);
  const dumb = await Socket.open(t, quick, { options: { autoPong: false } });
  await soon('a ping', once(answering.raw, 'ping'));
  assert.deepEqual(await dumb.closed(), { code: 4001, reason: 'timeout' });
  assert.deepEqual(await answering.ask({ type: 'ping', id: 1 }), { type: 'pong', id: 1 });
});

test('subprotocols', async (t) => {
  const json = await Socket.open(t, node, { protocols: ['tidewire.json'] });
  assert.equal(json.raw.protocol, 'tidewire.json');
  const second = await Socket.open(t, node, { protocols: ['mqtt', 'tidewire.json'] });
  assert.equal(second.raw.protocol, 'tidewire.json');
  const none = await Socket.open(t, node);
  assert.equal(none.raw.protocol, '');
  for (const unknown of ['tidewire.xml', 'mqtt']) {
    const { status, text, headers } = await refused(`${node.ws}/v1/ws`, [unknown]);
    assert.equal(status, 400);
    assert.equal(headers['content-type'], 'application/problem+json');
    assert.equal(JSON.parse(text).code, 'bad_request');
  }
});

test('a malformed channel in the address is refused before the upgrade', async () => {
  for (const channel of ['', 'a b', 'a{b}', 'a*', 'x'.repeat(201)]) {
    const { status, text } = await refused(`${node.ws}/v1/ws?channel=${encodeURIComponent(channel)}`);
    assert.deepEqual([status, JSON.parse(text).code], [400, 'bad_channel'], channel);
  }
});

test('close codes', async (t) => {
  const closing = async (act) => {
    const socket = await Socket.open(t, node);
    act(socket.raw);
    return (await socket.closed()).code;
  };
  assert.equal(await closing((raw) => raw.close(1000, 'done')), 1000);
  assert.equal(await closing((raw) => raw.close(4321)), 4321);
  assert.equal(await closing((raw) => raw.close()), 1005);
  assert.equal(await closing((raw) => raw.send(Buffer.from([1, 2, 3]))), 1003);
  assert.equal(await closing((raw) => raw.send('x'.repeat(65_537))), 1009);
  assert.equal(await closing((raw) => raw.send('x'.repeat(65_537), { binary: true })), 1009);
  assert.equal(await closing((raw) => {
    for (let i = 0; i < 10; i += 1) raw.send('nonsense');
  }), 4103);
});

test('errors name the frame and the code, and leave the session as it was', async (t) => {
  const socket = await Socket.open(t, node);
  const code = async (frame) => {
    const { type, code } = await socket.ask({ id: 'e', ...frame });
    return type === 'error' ? code : type;
  };
  assert.equal(await code({ type: 'subscribe', channel: 'no spaces' }), 'bad_channel');
  assert.equal(await code({ type: 'unsubscribe', channel: 'ws:never' }), 'not_subscribed');
  assert.equal(await code({ type: 'history', channel: 'ws:never' }), 'no_history');
  assert.equal(await code({ type: 'publish', channel: 'ws:x', event: 'tidewire:fake', payload: 1 }), 'bad_frame');
  assert.equal(await code({ type: 'publish', channel: 7, payload: 1 }), 'bad_frame');
  assert.equal(await code({ type: 'subscribe', channel: 'ws:fine' }), 'ack');
});

test('many messages come in order, each once', async (t) => {
  const count = 5_000;
  const publisher = await Socket.open(t, node);
  const subscriber = await Socket.open(t, node, { channels: ['ws:many'] });
  const numbers = [];
  for (let n = 0; n < count; n += 500) {
    // This one process cannot read while it writes: no more at a time than may wait for a client.
    for (let i = n; i < n + 500; i += 1) {
      publisher.send({ type: 'publish', channel: 'ws:many', payload: i });
    }
    numbers.push(...(await subscriber.take(500)).map((message) => message.payload));
  }
  assert.deepEqual(numbers, Array.from({ length: count }, (_, n) => n));
});

test('a fragmented frame is put together, with a ping between', async (t) => {
  const socket = await Socket.open(t, node);
  const text = JSON.stringify({ type: 'publish', id: 1, channel: 'ws:parts', payload: '🌊'.repeat(100) });
  const bytes = Buffer.from(text);
  const pong = once(socket.raw, 'pong');
  // Cut within a character: fragments need not be valid UTF-8 by themselves.
  socket.raw.send(bytes.subarray(0, 151), { binary: false, fin: false });
  socket.raw.ping('between');
  socket.raw.send(bytes.subarray(151, 300), { binary: false, fin: false });
  socket.raw.send(bytes.subarray(300), { binary: false, fin: true });
  assert.equal((await socket.find((frame) => frame.id === 1)).type, 'ack');
  assert.equal((await soon('a pong', pong))[0].toString(), 'between');
});

test('a node that stops tells its sessions and ends in order', async (t) => {
  const leaving = await startNode(t, { env: { TIDEWIRE_DRAIN__TIME: '300ms' } });
  const socket = await Socket.open(t, leaving, { channels: ['ws:leaving'] });
  leaving.terminate();
  const shutdown = await socket.next();
  assert.equal(shutdown.type, 'shutdown');
  assert.ok(shutdown.reconnect >= 0 && shutdown.reconnect <= 5_000, JSON.stringify(shutdown));
  assert.deepEqual(await socket.closed(), { code: 1012, reason: 'shutdown' });
  assert.deepEqual(await leaving.ended(), { code: 0, signal: null });
});
