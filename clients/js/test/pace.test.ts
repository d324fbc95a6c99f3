// More at once than a gateway takes that asks for tokens: it goes out at the gateway's pace, in order, and all of it.

import { createHmac } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import WebSocket from 'ws';
import { Process } from '../../tests/lib/process.mjs';
import { packed } from '../src/msgpack.js';
import { client, counted, listen, startNode, startProxy, state, subscribed, until } from './lib/world.js';

const SECRET = 'a secret of thirty-two bytes, or more';

/** A gateway as it comes where logging in is required: 100 frames a second, 200 messages of a user. */
const strict = (env = {}) => startNode({ env: { TIDEWIRE_AUTH__JWT__SECRET: SECRET, TIDEWIRE_NAMESPACES__DEFAULT__HISTORY_SIZE: '2000', ...env } });

function jwt(sub = 'ada'): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const iat = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg: 'HS256' })}.${part({ sub, subscribe: ['*'], publish: ['*'], iat, exp: iat + 3_600 })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

/** What a node has stored of a channel, oldest first. */
async function stored(node: any, channel: string): Promise<any[]> {
  const url = `${node.url}/v1/channels/${channel}/messages?limit=1000`;
  let next: string | undefined;
  const all: any[] = [];
  do {
    const page = await (await fetch(next ? `${url}&before=${next}` : url, { headers: { authorization: `Bearer ${jwt('reader')}` } })).json();
    all.unshift(...page.messages.map(({ payload }: any) => payload));
    next = page.next;
  } while (next);
  return all;
}

const errors = (node: any, code: string): Promise<number> => node.metric(`tidewire_errors_total{code="${code}"}`);

describe.each([['ws', {}], ['ws', { WebSocket: packed(WebSocket as any) }], ['sse', {}]] as const)('over %s %#', (transport, more) => {
  const options = { transports: [transport], token: () => jwt(), ...more };

  test('a thousand at once: all are acknowledged, and stored in their order', async () => {
    const node = await strict();
    const tw = client(node, options);
    const [room, other] = [listen(tw, 'room:1'), tw.channel('room:2')];
    await subscribed(room);
    const all = numbers(1_000).map((n) => (n % 10 ? room.channel : other).publish('n', n, { timeout: 60_000 }));
    expect((await Promise.all(all)).filter(({ duplicate }) => duplicate)).toEqual([]);
    expect(await stored(node, 'room:1')).toEqual(numbers(1_000).filter((n) => n % 10));
    expect(await stored(node, 'room:2')).toEqual(numbers(1_000).filter((n) => n % 10 === 0));
    await counted(room, 900);
    expect(tw.errors).toEqual([]);
    expect(tw.states.filter(({ status }) => status === 'open').length).toBe(1);
  }, 90_000);

  test('so many that waited for a connection', async () => {
    const node = await strict();
    const proxy = await startProxy(node);
    proxy.lead({ url: 'http://127.0.0.1:9' });
    const tw = client(proxy, options);
    const room = tw.channel('room:1');
    const all = numbers(500).map((n) => room.publish('n', n, { timeout: 60_000 }));
    await until('it fails', () => tw.states.some(({ status }) => status === 'waiting'));
    proxy.lead(node);
    await Promise.all(all);
    expect(await stored(node, 'room:1')).toEqual(numbers(500));
    expect(tw.states.filter(({ status }) => status === 'open').length).toBe(1);
  }, 90_000);
});

test.each([{}, { TIDEWIRE_LIMITS__FRAMES_PER_SECOND: '20' }])('128 channels at once, left, joined again, and published to: %j', async (env) => {
  const node = await strict(env);
  const tw = client(node, { transports: ['ws'], token: () => jwt(), publishTimeout: 60_000 });
  await state(tw, 'open');
  const first = numbers(128).map((n) => listen(tw, `many:${n}`));
  for (const { channel } of first) channel.leave();
  const all = numbers(128).map((n) => listen(tw, `many:${n}`));
  const receipts = all.map(({ channel }, n) => channel.publish('n', n));
  await until('all of them', () => all.every((one) => one.subscribed[0] && one.payloads[0] !== undefined), 60_000);
  await Promise.all(receipts);
  expect(all.map(({ payloads }) => payloads)).toEqual(numbers(128).map((n) => [n]));
  expect([...all, ...first].flatMap(({ denied, gaps }) => [...denied, ...gaps])).toEqual([]);
  expect(await errors(node, 'too_fast')).toBe(0);
  expect(tw.states.filter(({ status }) => status === 'open').length).toBe(1);
}, 90_000);

test('what was refused, and is given up, holds up nobody behind it', async () => {
  const node = await strict({ TIDEWIRE_NAMESPACES__ROOM__HISTORY_SIZE: '500', TIDEWIRE_NAMESPACES__ROOM__PUBLISHES_PER_SECOND: '1' });
  const tw = client(node, { transports: ['ws'], token: () => jwt() });
  const refused = numbers(6).map((n) => tw.channel('room:1').publish('n', n, { timeout: 700 }).catch(({ code }) => code));
  await until('one is too fast', async () => await errors(node, 'too_fast') > 0);
  const other = tw.channel('other').publish('n', 1);
  expect(await Promise.all(refused)).toContain('timeout');
  expect((await other).messageId).toBeTruthy();
});

test('a process ends when its client is closed, whatever waits', async () => {
  const node = await strict();
  const code = `
    import { connect } from ${JSON.stringify(new URL('../dist/tidewire.js', import.meta.url).href)};
    const tw = connect('${node.url}', { transports: ['sse'], token: '${jwt()}' });
    const all = Array.from({ length: 900 }, (_, n) => tw.channel('room:1').publish('n', n));
    for (const one of all) one.catch(() => {});
    await all[0];
    tw.close();
    const fates = await Promise.allSettled(all);
    console.log(fates.map(({ status, reason }) => reason?.code ?? status).join(' '));
  `;
  const process = new Process(globalThis.process.execPath, ['--input-type=module', '-e', code]);
  onTestFinished(async () => void (await process.kill()));
  expect(await process.ended()).toMatchObject({ code: 0 });
  expect(process.output).toContain('closed');
});

test('by bytes, too: large messages that are not ASCII', async () => {
  const node = await strict();
  const tw = client(node, { transports: ['ws'], token: () => jwt() });
  const room = tw.channel('room:1');
  const text = 'ü'.repeat(20_000);
  // Four megabytes, where one a second is allowed, and two at once.
  const all = numbers(100).map((n) => room.publish('n', `${n} ${text}`, { timeout: 60_000 }));
  await Promise.all(all);
  expect((await stored(node, 'room:1')).map((payload) => parseInt(payload, 10))).toEqual(numbers(100));
  expect(await errors(node, 'too_fast')).toBe(0);
}, 90_000);

test.each(['ws', 'sse'] as const)('hundreds sent over %s without an acknowledgement: some are dropped, and nothing else suffers', async (transport) => {
  const node = await strict({ TIDEWIRE_NAMESPACES__LIVE__HISTORY_SIZE: '0' });
  const tw = client(node, { transports: [transport], token: () => jwt() });
  const [live, room] = [listen(tw, 'live:1'), listen(tw, 'room:1')];
  await Promise.all([subscribed(live), subscribed(room)]);
  for (const n of numbers(3)) {
    for (const m of numbers(500)) live.channel.send('at', n * 500 + m);
    await room.channel.publish('n', n);
  }
  await counted(room, 3);
  expect(room.payloads).toEqual([0, 1, 2]);
  // Those that went out, in order, are more than a few and by far not all.
  expect(live.payloads.length).toBeGreaterThan(50);
  expect(live.payloads.length).toBeLessThan(500);
  expect(live.payloads).toEqual([...live.payloads].sort((a, b) => a - b));
  expect(tw.states.filter(({ status }) => status === 'open').length).toBe(1);
  expect(tw.errors).toEqual([]);
});

test('a limit that the welcome does not name: what is refused goes out when there is room', async () => {
  // Of the namespace, for all together: 50 in a second.
  const node = await strict({ TIDEWIRE_NAMESPACES__ROOM__HISTORY_SIZE: '500', TIDEWIRE_NAMESPACES__ROOM__PUBLISHES_PER_SECOND: '50' });
  const tw = client(node, { transports: ['ws'], token: () => jwt() });
  const all = numbers(300).map((n) => tw.channel('room:1').publish('n', n, { timeout: 60_000 }));
  await Promise.all(all);
  expect((await stored(node, 'room:1')).sort((a, b) => a - b)).toEqual(numbers(300));
  expect(await errors(node, 'too_fast')).toBeGreaterThan(0);
  expect(tw.states.filter(({ status }) => status === 'open').length).toBe(1);
}, 90_000);
