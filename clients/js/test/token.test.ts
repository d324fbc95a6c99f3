// When the token function is called, and that what it gives is what a gateway that asks for tokens takes.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { expect, onTestFinished, test, vi } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { TRANSPORTS, type Watched, client, listen, startNode, startProxy, state, subscribed, until } from './lib/world.js';

const SECRET = 'a secret of thirty-two bytes, or more';
/** The time of servers, whatever a test does to that of clients. */
const trueNow = Date.now;
const env = { TIDEWIRE_AUTH__JWT__SECRET: SECRET };

/** A token that is good for so many seconds, and was for so many before; it does not say so itself where that is NaN. */
function jwt(seconds: number, n = 0, before = 0): string {
  // NaN, which JSON makes null of, is left out.
  const part = (value: object) => Buffer.from(JSON.stringify(value, (_, one) => (Number.isNaN(one) ? undefined : one))).toString('base64url');
  const iat = Math.floor(trueNow() / 1000);
  const claims = { sub: 'ü', subscribe: ['*'], publish: ['*'], iat: iat - before, exp: iat + seconds, n };
  const signed = `${part({ alg: 'HS256' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

test.each(TRANSPORTS)('over %s an async function is asked once, and again when half a minute is left', async (transport) => {
  const node = await startNode({ env });
  let asked = 0;
  const sent: string[] = [];
  const token = async () => {
    asked += 1;
    await Promise.resolve();
    return jwt(asked === 1 ? 2 : 3_600, asked);
  };
  class Spy extends WebSocket {
    override send(data: any) {
      const frame = JSON.parse(data);
      if (frame.type === 'auth') sent.push(frame.token);
      super.send(data);
    }
  }
  const spied: typeof fetch = (url, init) => {
    sent.push(String((init?.headers as any).authorization).replace('Bearer ', ''));
    return fetch(url, init);
  };
  const tw = client(node, { transports: [transport], token, WebSocket: Spy as any, fetch: spied });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  expect(asked).toBe(1);
  await until('another one', () => new Set(sent).size === 2);
  await room.channel.publish('e', 1);
  expect(asked).toBe(2);
  expect(tw.state.status).toBe('open');
  expect(tw.states.filter(({ status }) => status === 'waiting')).toEqual([]);
});

test.each(TRANSPORTS)('over %s a login that the gateway ends: a token is fetched, and nothing is missed', async (transport) => {
  const node = await startNode({ env: { ...env, TIDEWIRE_AUTH__JWT__LEEWAY: '0s' } });
  let asked = 0;
  const token = () => {
    asked += 1;
    // By its own times it is good for an hour: the client sees no reason to ask for another one.
    return asked === 1 ? jwt(3, asked, 3_600) : jwt(3_600, asked);
  };
  const tw = client(node, { transports: [transport], token });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  await room.channel.publish('e', 1);
  await until('the end of the login', () => asked === 2, 15_000);
  await room.channel.publish('e', 2);
  await until('both', () => room.payloads.length === 2);
  expect(room.payloads).toEqual([1, 2]);
  expect(room.gaps).toEqual([]);
  expect(tw.state.status).toBe('open');
  if (transport === 'ws') expect(tw.states.some(({ reason }: any) => reason?.code === 4002)).toBe(true);
});

test.each(['sse', 'poll'] as const)('over %s a message that met the end of its token is sent again with the next one', async (transport) => {
  const node = await startNode({ env });
  let asked = 0;
  const statuses: number[] = [];
  const late: typeof fetch = async (url, init) => {
    const isFirst = init?.method === 'POST' && !statuses[0];
    const response = await fetch(url, isFirst ? { ...init, headers: { ...init.headers, authorization: `Bearer ${jwt(-60)}` } } : init);
    if (init?.method === 'POST') statuses.push(response.status);
    return response;
  };
  const tw = client(node, { transports: [transport], token: () => jwt(3_600, ++asked), fetch: late });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  const [one, other] = await Promise.all([room.channel.publish('e', 1), room.channel.publish('e', 2)]);
  expect([one.duplicate, other.duplicate]).toEqual([false, false]);
  await until('both', () => room.payloads.length === 2);
  expect(room.payloads).toEqual([1, 2]);
  expect([statuses[0], asked]).toEqual([401, 2]);
});

test('a token function that fails is reported and asked again', async () => {
  const node = await startNode({ env });
  let asked = 0;
  const tw = client(node, {
    token: () => {
      asked += 1;
      if (asked < 3) throw new Error('signed out');
      return jwt(3_600);
    },
  });
  await state(tw, 'open');
  expect(asked).toBe(3);
  expect(tw.errors.map(String)).toEqual(['Error: signed out', 'Error: signed out']);
  expect(tw.states.filter(({ status }) => status === 'waiting').map(({ reason }: any) => reason.code)).toEqual(['token', 'token']);
});

test('closed while the token is fetched: nothing is left behind', async () => {
  const node = await startNode({ env });
  let give = (_: string) => {};
  const token = vi.fn(() => new Promise<string>((resolve) => (give = resolve)));
  const tw = client(node, { token });
  tw.close();
  const timers = vi.spyOn(globalThis, 'setTimeout');
  onTestFinished(() => void timers.mockRestore());
  give(jwt(3_600));
  // All that follows from it has happened before this does.
  await new Promise(setImmediate);
  // No reminder, which would be one for in an hour: others are those of connections that fetch keeps.
  expect(timers.mock.calls.filter(([, ms]) => ms! > 60_000)).toEqual([]);
  expect(token).toHaveBeenCalledTimes(1);
});

test.each(TRANSPORTS)('over %s a clock that is ahead, and a token without iat: it is asked for when the gateway says so', async (transport) => {
  const node = await startNode({ env: { ...env, TIDEWIRE_AUTH__JWT__LEEWAY: '0s' } });
  vi.spyOn(Date, 'now').mockImplementation(() => trueNow() + 7_200_000);
  onTestFinished(() => void vi.restoreAllMocks());
  /** What the client was doing when it asked. */
  const asked: string[] = [];
  const token = () => {
    asked.push(tw?.state.status ?? 'new');
    return jwt(asked.length === 1 ? 3 : 3_600, asked.length, NaN);
  };
  const tw: Watched | undefined = client(node, { transports: [transport], token });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  await room.channel.publish('e', 1);
  await until('the end of the login', () => asked.length === 2, 15_000);
  await room.channel.publish('e', 2);
  await until('both', () => room.payloads.length === 2);
  expect(room.payloads).toEqual([1, 2]);
  // The gateway had ended the first one: by the clock here both were over from the start.
  expect(asked).toEqual(['connecting', 'connecting']);
});

test('after a break the same token serves while it is good', async () => {
  const node = await startNode({ env });
  const proxy = await startProxy(node);
  const token = vi.fn(() => jwt(3_600));
  const tw = client(proxy, { token });
  const room = listen(tw, 'room:1');
  await subscribed(room);
  proxy.cut();
  await subscribed(room, 2);
  expect(token).toHaveBeenCalledTimes(1);
});

/** Not a gateway: it says the closing words of one, as the gateways of these tests do not. */
async function closing(codes: number[]): Promise<{ url: string }> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  server.on('connection', (socket) => {
    const code = codes.shift();
    if (code === 1006) return socket.terminate();
    if (code) return socket.close(code, `because ${code}`);
    socket.send(JSON.stringify({ type: 'welcome', session: 's', heartbeat: 25, channels: [] }));
    socket.on('message', (data) => {
      const { type, id } = JSON.parse(String(data));
      if (type === 'auth') socket.send(JSON.stringify({ type: 'ack', id }));
    });
    return undefined;
  });
  return { url: `http://127.0.0.1:${(server.address() as any).port}` };
}

test('close codes decide: 4002 and 4100 ask for another token, 41xx ends it', async () => {
  const token = vi.fn(() => jwt(3_600));
  const options = { token, transports: ['ws'] as const };
  const tw = client(await closing([4002, 4100, 4000, 4003, 1012, 1006]), options);
  await state(tw, 'open');
  // At the start, for 4002, and for 4100; not for the others.
  expect(token).toHaveBeenCalledTimes(3);
  tw.close();

  // Refused again with the new one: that is final.
  const twice = client(await closing([4100, 4100]), options);
  expect((await state(twice, 'closed')).reason).toEqual({ code: 4100, message: 'because 4100' });
  expect(token).toHaveBeenCalledTimes(5);

  for (const code of [4101, 4102, 4103, 4104]) {
    const one = client(await closing([code]), options);
    expect((await state(one, 'closed')).reason).toEqual({ code, message: `because ${code}` });
    await expect(one.channel('a').publish('e', 1)).rejects.toMatchObject({ code: 'closed' });
  }
  // A token that cannot change need not be sent again.
  const fixed = client(await closing([4002]), { ...options, token: 'fixed' });
  expect((await state(fixed, 'closed')).reason.code).toBe(4002);
});
