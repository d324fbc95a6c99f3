// Conflated live namespaces: the newest message of each event in an interval.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BINARY, sharedNode } from './lib/node.mjs';
import { Process } from './lib/process.mjs';
import { Socket } from './lib/socket.mjs';

const node = sharedNode({
  env: { TIDEWIRE_NAMESPACES__GAME__HISTORY_SIZE: '0', TIDEWIRE_NAMESPACES__GAME__CONFLATE: '1s' },
});

test('the first at once, then the newest of each event; what is left out is counted', async (t) => {
  const channel = 'game:1';
  const socket = await Socket.open(t, node, { channels: [channel] });
  const messages = Array.from({ length: 40 }, (_, n) => (
    { channel, event: n % 2 ? 'position' : 'score', payload: n }));
  const answer = await fetch(`${node.url}/v1/messages`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ messages }),
  });
  assert.equal((await answer.json()).results.length, 40);
  const got = [await socket.next(), await socket.next(), await socket.next()];
  assert.deepEqual(got.map(({ payload }) => payload), [0, 38, 39]);
  assert.equal(await node.metric('tidewire_conflated_messages_total{namespace="game"}'), 37);
});

test('a stored namespace cannot be conflated', async (t) => {
  const start = new Process(BINARY, ['serve', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'], {
    TIDEWIRE_NAMESPACES__GAME__CONFLATE: '50ms',
  });
  t.after(() => start.kill());
  assert.notEqual((await start.ended()).code, 0);
  assert.match(start.output, /namespaces\.game\.conflate = "?50ms"?: only a live namespace/);
});
