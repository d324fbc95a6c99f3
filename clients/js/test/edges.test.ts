// What users of the library do sooner or later: end it from a handler, throw in the wrong place, keep an old object, flood it.

import { createHmac } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';
import { client, listen, startNode, startProxy, state, subscribed, until } from './lib/world.js';

const SECRET = 'a secret of thirty-two bytes, or more';

function jwt(): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const iat = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg: 'HS256' })}.${part({ sub: 'ada', subscribe: ['*'], publish: ['*'], iat, exp: iat + 3_600 })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

test('who closes while it begins to connect has it closed', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const tw = client(proxy);
  await state(tw, 'open');
  tw.on('state', ({ status }) => status === 'connecting' && tw.close());
  proxy.cut();
  await state(tw, 'closed');
  // It would be there before this one is.
  await state(client(proxy), 'open');
  expect(proxy.seen.get('/v1/ws')).toBe(2);
  expect(tw.state.status).toBe('closed');
});

test('what a user may not have costs nothing else, however much of it there is', async () => {
  const rules = { TIDEWIRE_NAMESPACES__ROOM__SUBSCRIBE: 'nobody', TIDEWIRE_NAMESPACES__ROOM__PUBLISH: 'nobody' };
  const tw = client(await startNode({ env: { ...rules, TIDEWIRE_LIMITS__SUBSCRIPTIONS_PER_SESSION: '20' } }));
  const denied: string[] = [];
  numbers(60).forEach((n) => {
    tw.channel(n < 30 ? `room:${n}` : `other:${n}`).on('denied', ({ code }: { code: string }) => denied.push(code));
    tw.channel(n < 30 ? `room:${n}` : `other:${n}`).on('e', () => {});
  });
  await until('all answers', () => denied.length === 40);
  expect(denied.filter((code) => code === 'forbidden').length).toBe(30);
  const refused = await Promise.allSettled(numbers(30).map((n) => tw.channel('room:0').publish('e', n)));
  expect(refused.every((one: any) => one.reason?.code === 'forbidden')).toBe(true);
  await tw.channel('other:30').publish('e', 1);
  expect(tw.states.map(({ status }) => status)).toEqual(['connecting', 'open']);
});

test('a handler of errors that throws is called once, and the stream goes on', async () => {
  const outside = vi.spyOn(console, 'error').mockImplementation(() => {});
  onTestFinished(() => outside.mockRestore());
  const tw = client(await startNode());
  const room = listen(tw, 'room:1');
  room.channel.on('n', () => {
    throw new Error('a handler');
  });
  tw.on('error', () => {
    throw new Error('a handler of errors');
  });
  await room.channel.publish('n', 1);
  await room.channel.publish('n', 2);
  await until('both', () => room.payloads.length === 2);
  await until('errors', () => tw.errors.length === 2);
  expect(tw.errors.map(String)).toEqual(['Error: a handler', 'Error: a handler']);
  expect(outside.mock.calls.map(String)).toEqual(['Error: a handler of errors', 'Error: a handler of errors']);
});

test.each(['ws', 'sse'] as const)('over %s a channel that was left is used again beside a new one of its name: the last one counts', async (transport) => {
  const tw = client(await startNode(), { transports: [transport] });
  const old = listen(tw, 'live:1');
  await subscribed(old);
  old.channel.leave();
  const other = listen(tw, 'live:1');
  await subscribed(other);
  const payloads: unknown[] = [];
  old.channel.on('n', (payload) => payloads.push(payload));
  await old.channel.publish('n', 1);
  await until('it is heard', () => payloads.length > 0);
  expect(payloads).toEqual([1]);
  expect(other.payloads).toEqual([]);
  expect(tw.channel('live:1')).toBe(old.channel);
});

test.each(['sse', 'poll'] as const)('over %s a flood without acknowledgements does not keep others from going out', async (transport) => {
  const node = await startNode({ env: { TIDEWIRE_AUTH__JWT__SECRET: SECRET } });
  const tw = client(node, { transports: [transport], token: jwt });
  const [at, room] = [tw.channel('room:at'), tw.channel('room:1')];
  await state(tw, 'open');
  let isFlooded = false;
  const flood = setInterval(async () => {
    for (const n of numbers(100)) at.send('at', n);
    isFlooded ||= await node.metric('tidewire_errors_total{code="too_fast"}') > 0;
  }, 5);
  onTestFinished(() => clearInterval(flood));
  await until('it is too much', () => isFlooded);
  for (const n of numbers(5)) await room.publish('n', n);
  await Promise.all(numbers(20).map((n) => room.publish('n', n)));
  expect(tw.errors).toEqual([]);
}, 30_000);

test('one may wait for ever', async () => {
  const tw = client(await startNode(), { publishTimeout: Infinity });
  const room = tw.channel('room:1');
  await room.publish('n', 1);
  await room.publish('n', 2, { timeout: Infinity });
});

test('of many the one that is too large is refused: by its bytes, not its characters', async () => {
  const tw = client(await startNode());
  const room = tw.channel('room:1');
  const texts = ['\u00fc'.repeat(40_000), 'a'.repeat(60_000), 'a'];
  const fates = await Promise.allSettled(texts.map((text) => room.publish('n', text)));
  expect(fates.map(({ status, reason }: any) => reason?.code ?? status)).toEqual(['too_large', 'fulfilled', 'fulfilled']);
});
