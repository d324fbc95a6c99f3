// permessage-deflate (RFC 7692) with the npm package `ws`, whose compression is Node's zlib.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedNode } from './lib/node.mjs';
import { publish } from './lib/publish.mjs';
import { Socket, refused } from './lib/socket.mjs';

const node = sharedNode({ env: { TIDEWIRE_COMPRESSION__WEBSOCKET: 'true' } });
const plain = sharedNode();

const AGREED = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';
const LONG = { text: 'the tide comes in, the tide goes out; '.repeat(200), list: [1, 'ä🌊', null] };

/** How many bytes came while `act` ran. */
async function received(socket, act) {
  const before = socket.raw._socket.bytesRead;
  await act();
  return socket.raw._socket.bytesRead - before;
}

function offering(perMessageDeflate) {
  return { options: { perMessageDeflate } };
}

test('one compressed frame for who offers it, the same message for who does not', async (t) => {
  const channels = ['deflate:mixed'];
  const sockets = await Promise.all([
    Socket.open(t, node, { channels }),
    Socket.open(t, node, { channels }),
    Socket.open(t, node, { channels, ...offering(false) }),
    Socket.open(t, node, { channels, protocols: ['tidewire.msgpack'] }),
    Socket.open(t, node, { channels, protocols: ['tidewire.msgpack'], ...offering(false) }),
  ]);
  const [one, other, bare, packed, barePacked] = sockets;
  for (const socket of [one, other, packed]) assert.equal(socket.raw.extensions, 'permessage-deflate');
  for (const socket of [bare, barePacked]) assert.equal(socket.raw.extensions, '');
  const sizes = await Promise.all(sockets.map(async (socket, n) => {
    return received(socket, async () => {
      if (n === 0) await publish(node, channels[0], { payload: LONG });
      assert.deepEqual((await socket.message()).payload, LONG);
    });
  }));
  const [compressed, same, whole, compressedPacked, wholePacked] = sizes;
  assert.ok(compressed < 500 && compressedPacked < 500, `${sizes}`);
  assert.equal(compressed, same);
  assert.ok(whole > 7_500 && wholePacked > 7_500, `${sizes}`);
});

test('short messages and replies stay as they are', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['deflate:short'] });
  // It compresses what it is told to, whatever its size.
  socket.raw.send(JSON.stringify({ type: 'publish', id: 1, channel: 'deflate:short', payload: 'x' }), { compress: true });
  const frames = await socket.take(2);
  assert.deepEqual(frames.map((frame) => frame.type).sort(), ['ack', 'message']);
  assert.deepEqual(await socket.ask({ type: 'ping', id: 2 }), { type: 'pong', id: 2 });
});

test('clients compress, in one frame or in many, with pings between', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['deflate:sent'] });
  const frame = JSON.stringify({ type: 'publish', channel: 'deflate:sent', payload: LONG });
  socket.raw.send(frame);
  assert.deepEqual((await socket.message()).payload, LONG);
  for (let at = 0; at < frame.length; at += 1_000) {
    socket.raw.send(frame.slice(at, at + 1_000), { fin: at + 1_000 >= frame.length, compress: true });
    socket.raw.ping();
  }
  assert.deepEqual((await socket.message()).payload, LONG);
});

test('offers are answered as they must be', async (t) => {
  const answer = async (offer) => {
    const { raw } = await Socket.open(t, node, { options: { perMessageDeflate: false, headers: { 'Sec-WebSocket-Extensions': offer } } })
      .catch((error) => { throw new Error(`${offer}: ${error.message}`); });
    return raw.extensions;
  };
  // This client knows of no offer of its own then, and would refuse any answer.
  assert.equal(await answer('permessage-deflate; server_max_window_bits=7'), '');
  assert.equal(await answer('x-other; a=1'), '');
  for (const malformed of ['permessage-deflate;', 'permessage-deflate; a=']) {
    const { status } = await refused(`${node.ws}/v1/ws`, [], {
      perMessageDeflate: false, headers: { 'Sec-WebSocket-Extensions': malformed },
    });
    assert.equal(status, 400, malformed);
  }

  const upgraded = (options) => new Promise((resolve, reject) => {
    const socket = new Socket(`${node.ws}/v1/ws`, [], options);
    t.after(() => socket.raw.terminate());
    socket.raw.on('upgrade', ({ headers }) => resolve(headers['sec-websocket-extensions']));
    socket.raw.on('error', reject);
  });
  assert.equal(await upgraded({}), AGREED);
  assert.equal(await upgraded({ perMessageDeflate: { serverMaxWindowBits: 14 } }), `${AGREED}; server_max_window_bits=12`);
  assert.equal(await upgraded({ perMessageDeflate: { serverMaxWindowBits: 9 } }), `${AGREED}; server_max_window_bits=9`);
});

test('a client with a window too small for us gets everything uncompressed', async (t) => {
  const channels = ['deflate:window'];
  const socket = await Socket.open(t, node, { channels, ...offering({ serverMaxWindowBits: 9 }) });
  const bytes = await received(socket, async () => {
    socket.send({ type: 'publish', channel: channels[0], payload: LONG });
    assert.deepEqual((await socket.message()).payload, LONG);
  });
  assert.ok(bytes > 7_500, `${bytes}`);
});

test('a bomb is refused, and what is no compressed data', async (t) => {
  const bomb = await Socket.open(t, node);
  bomb.raw.send(JSON.stringify({ type: 'publish', channel: 'a', payload: '0'.repeat(20_000_000) }));
  assert.equal((await bomb.closed()).code, 1009);

  const broken = await Socket.open(t, node);
  // A masked text frame with the compressed bit, and no DEFLATE data in it.
  broken.raw._socket.write(Buffer.from([0xc1, 0x84, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
  assert.equal((await broken.closed()).code, 1007);

  const control = await Socket.open(t, node);
  control.raw._socket.write(Buffer.from([0xc9, 0x80, 0, 0, 0, 0]));
  assert.equal((await control.closed()).code, 1002);
});

test('a node that does not compress says so, and refuses who does all the same', async (t) => {
  const socket = await Socket.open(t, plain);
  assert.equal(socket.raw.extensions, '');
  socket.raw._socket.write(Buffer.from([0xc1, 0x80, 0, 0, 0, 0]));
  assert.equal((await socket.closed()).code, 1002);
});
