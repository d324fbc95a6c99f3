// MessagePack on the wire: what one client writes another one reads, whichever of the two forms each of them speaks.

import { expect, test } from 'vitest';
import WebSocket from 'ws';
import { packed } from '../src/msgpack.js';
import { client, counted, listen, publish, random, startNode, subscribed } from './lib/world.js';

const EDGES = [
  0, 1, -1, 31, 32, -32, -33, 127, 128, 255, 256, -128, -129, 65_535, 65_536, 2 ** 31, -(2 ** 31), 2 ** 32 - 1, 2 ** 32,
  2 ** 53 - 1, -(2 ** 53 - 1), 0.5, -1.5e300, 5e-324, '', 'ü\u2028\u0000', 'x'.repeat(31), 'x'.repeat(32), 'é'.repeat(200), 'x'.repeat(300),
  'x'.repeat(40_000), true, false, null, [], {}, Array(15).fill(1), Array(16).fill('a'), Array(9_000).fill(0),
  Object.fromEntries(Array.from({ length: 16 }, (_, n) => [`k${n}`, n])), JSON.parse('{"__proto__":{"a":1},"":[[[{}]]]}'),
];

/** Any JSON value. */
function some(next: () => number, depth = 0): unknown {
  const count = Math.floor(next() * 6);
  const kind = Math.floor(next() * (depth > 4 ? 1 : 3));
  if (kind === 1) return Array.from({ length: count }, () => some(next, depth + 1));
  if (kind === 2) return Object.fromEntries(Array.from({ length: count }, (_, n) => [`${n}${next()}`.slice(0, 9), some(next, depth + 1)]));
  return EDGES[Math.floor(next() * 28)];
}

test('any value comes as it was sent, in either direction', async () => {
  const node = await startNode();
  class Spy extends WebSocket {
    constructor(url: any, protocol: any) {
      super(url, protocol);
      this.on('message', (_, isBinary) => kinds.add(isBinary));
    }
  }
  const kinds = new Set<boolean>();
  const binary = client(node, { WebSocket: packed(Spy as any) });
  const text = client(node);
  const [one, two] = [listen(binary, 'room:1'), listen(text, 'room:1')];
  await Promise.all([subscribed(one), subscribed(two)]);
  const next = random(11);
  const values = [...EDGES, ...Array.from({ length: 200 }, () => some(next))];
  for (const [n, value] of values.entries()) await [one, two][n % 2]!.channel.publish('v', value);
  await Promise.all([counted(one, values.length), counted(two, values.length)]);
  expect(one.payloads).toEqual(values);
  expect(two.payloads).toEqual(values);
  expect([...kinds]).toEqual([true]);
  expect(({} as any).a).toBeUndefined();
});

test('what others send: whole numbers beyond 2^53 lose digits as in JSON, fractions do not', async () => {
  const node = await startNode();
  const room = listen(client(node, { WebSocket: packed(WebSocket as any) }), 'room:1');
  await subscribed(room);
  const sent = '[18446744073709551615, -9223372036854775808, 1.0, 0.1, 1e3]';
  await fetch(`${node.url}/v1/channels/room:1/messages`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: `{"payload":${sent}}`,
  });
  await publish(node, 'room:1', { payload: 'end' });
  await counted(room, 2);
  expect(room.payloads).toEqual([JSON.parse(sent), 'end']);
});
