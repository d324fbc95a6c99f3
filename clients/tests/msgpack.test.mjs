// The subprotocol tidewire.msgpack, with the npm packages `ws` and `@msgpack/msgpack`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '@msgpack/msgpack';
import { sharedNode } from './lib/node.mjs';
import { publish } from './lib/publish.mjs';
import { Socket } from './lib/socket.mjs';

// One stored namespace beside the live default.
const node = sharedNode({ env: { TIDEWIRE_NAMESPACES__KEPT__HISTORY_SIZE: '100' } });
const packed = { protocols: ['tidewire.msgpack'] };

test('the same conversation as in JSON', async (t) => {
  const channel = 'pack:talk';
  const socket = await Socket.open(t, node, { channels: [channel], ...packed });
  const json = await Socket.open(t, node, { channels: [channel] });
  const { session, ...welcome } = socket.welcome;
  assert.match(session, /^\S+$/);
  assert.deepEqual(welcome, { type: 'welcome', heartbeat: 25, channels: [{ channel }] });

  const payload = {
    text: 'Grüße 🌊 "x"\u0001', list: [0, -1, 127, 128, -129, 2 ** 40, -(2 ** 40), 1.5e300, -0.1, null, true],
    map: Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`key${n}`, [{}]])),
  };
  socket.send({ type: 'publish', id: 'one', channel, event: 'said', payload, messageId: 'm-1' });
  assert.deepEqual(await socket.find((frame) => frame.id === 'one'), { type: 'ack', id: 'one', messageId: 'm-1' });
  const [{ timestamp, ...message }, inJson] = await Promise.all([socket.message(), json.message()]);
  assert.deepEqual(message, { type: 'message', channel, event: 'said', payload, messageId: 'm-1', from: { session } });
  assert.deepEqual(inJson, { timestamp, ...message });

  await publish(node, channel, { payload: 'from a backend' });
  assert.equal((await socket.message()).payload, 'from a backend');
  assert.deepEqual(await socket.ask({ type: 'unsubscribe', id: 2, channel }), { type: 'ack', id: 2 });
  const { code, message: text } = await socket.ask({ type: 'unsubscribe', id: -3.5, channel });
  assert.equal(code, 'not_subscribed');
  assert.match(text, /pack:talk/);
});

test('bytes are bytes here, and base64 in JSON', async (t) => {
  const channel = 'pack:bytes';
  const socket = await Socket.open(t, node, { channels: [channel], ...packed });
  const json = await Socket.open(t, node, { channels: [channel] });
  const payload = Uint8Array.from({ length: 300 }, (_, n) => n % 256);
  socket.send({ type: 'publish', channel, payload });
  const message = await socket.message();
  assert.deepEqual(message.payload, payload);
  assert.equal(message.encoding, undefined);
  const inJson = await json.message();
  assert.equal(inJson.payload, Buffer.from(payload).toString('base64'));
  assert.equal(inJson.encoding, 'base64');
});

test('stored channels: resume and history', async (t) => {
  const channel = 'kept:pack';
  const reader = await Socket.open(t, node, { channels: [channel], ...packed });
  const writer = await Socket.open(t, node, packed);
  const bytes = new Uint8Array([0, 255, 7]);
  for (const payload of ['a', bytes, { c: 1 }]) await writer.ask({ type: 'publish', id: 'p', channel, payload });
  const first = await reader.message();
  assert.equal(typeof first.cursor, 'string');

  const back = await Socket.open(t, node, packed);
  const ack = await back.ask({ type: 'subscribe', id: 1, channel, cursor: first.cursor });
  assert.deepEqual(ack, { type: 'ack', id: 1, cursor: first.cursor, recovered: true });
  const missed = [await back.message(), await back.message()].map(({ payload }) => payload);
  assert.deepEqual(missed, [bytes, { c: 1 }]);

  const page = await back.ask({ type: 'history', id: 2, channel, limit: 2 });
  assert.deepEqual(page.messages.map(({ payload }) => payload), [bytes, { c: 1 }]);
  assert.deepEqual(page.messages.map(({ type }) => type), ['message', 'message']);
  const older = await back.ask({ type: 'history', id: 3, channel, before: page.next });
  assert.deepEqual(older.messages.map(({ payload }) => payload), ['a']);
  assert.equal(older.next, undefined);
});

test('the client chooses by its order', async (t) => {
  for (const [protocols, chosen] of [
    [['tidewire.json', 'tidewire.msgpack'], 'tidewire.json'],
    [['other', 'tidewire.msgpack', 'tidewire.json'], 'tidewire.msgpack'],
  ]) {
    const socket = await Socket.open(t, node, { protocols });
    assert.equal(socket.raw.protocol, chosen);
    assert.equal(socket.welcome.type, 'welcome');
  }
});

test('what is wrong is told as in JSON', async (t) => {
  const socket = await Socket.open(t, node, packed);
  const error = async (frame) => {
    socket.raw.send(frame);
    return socket.find(({ type }) => type === 'error');
  };
  for (const [frame, code, id] of [
    [encode({ type: 'dance', id: 7 }), 'bad_frame', 7],
    [encode({ type: 'subscribe', id: 'q', channel: 'a b' }), 'bad_channel', 'q'],
    [encode([1]), 'bad_frame', undefined],
    [Buffer.from([0xc1]), 'bad_frame', undefined],
    [encode({ type: 'publish', id: 1, channel: 'a', payload: new Date() }), 'bad_frame', undefined],
    [encode({ type: 'publish', id: 1, channel: 'a', payload: [new Uint8Array(1)] }), 'bad_frame', undefined],
    [encode({ type: 'publish', id: 1, channel: 'a', payload: '\u0001'.repeat(20_000) }), 'too_large', undefined],
  ]) {
    const answer = await error(frame);
    assert.equal(answer.code, code, answer.message);
    assert.equal(answer.id, id);
  }
  assert.deepEqual(await socket.ask({ type: 'ping', id: 9 }), { type: 'pong', id: 9 });

  const text = await Socket.open(t, node, packed);
  text.raw.send('{"type":"ping"}');
  assert.equal((await text.closed()).code, 1003);
  const binary = await Socket.open(t, node);
  binary.raw.send(encode({ type: 'ping' }));
  assert.equal((await binary.closed()).code, 1003);
});
