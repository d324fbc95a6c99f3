// Questions to the application behind the gateway, and an application that does not say who may come in.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { expect, onTestFinished, test } from 'vitest';
import { client, listen, startNode, startProxy, state, subscribed, until } from './lib/world.js';

/** What the application answers: a status, the body, and headers. */
type Answer = [number, object?, object?];

/** An application, and what it was asked. */
async function startApplication(answer: (question: any) => Answer | Promise<Answer>) {
  const asked: any[] = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const piece of request) text += piece;
    asked.push(JSON.parse(text));
    const [status, body, headers] = await answer(asked.at(-1));
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body && JSON.stringify(body));
  });
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { asked, url: `http://127.0.0.1:${(server.address() as any).port}/` };
}

const SECRET = 'a secret of thirty-two bytes, or more';
const hooked = (hook: string, url: string) => ({ [`TIDEWIRE_HOOKS__${hook}`]: url, TIDEWIRE_HOOKS__SECRET: SECRET });

test('a question is answered, refused, or nobody is there to ask', async () => {
  const application = await startApplication(({ method, payload }) => (
    method === 'add' ? [200, { payload: payload.a + payload.b }]
      : method === 'nothing' ? [204]
        : [200, { error: { code: 'not_found', message: `what is ${method}?` } }]));
  const node = await startNode({ env: hooked('RPC', application.url) });
  const tw = client(node);
  // Before there is a connection, and several at once.
  const sums = await Promise.all([1, 2, 3].map((n) => tw.rpc<number>('add', { a: n, b: 1 })));
  expect(sums).toEqual([2, 3, 4]);
  expect(await tw.rpc('nothing')).toBe(null);
  expect(application.asked.at(-1)).toMatchObject({ hook: 'rpc', method: 'nothing', payload: null });
  await expect(tw.rpc('other')).rejects.toMatchObject({ name: 'TidewireError', code: 'not_found', message: 'what is other?' });
  tw.close();
  await expect(tw.rpc('add')).rejects.toMatchObject({ code: 'closed' });

  const alone = client(await startNode());
  await expect(alone.rpc('add')).rejects.toMatchObject({ code: 'not_found' });
});

test('a question whose connection breaks is not asked again, one that was not asked is', async () => {
  const busy: Answer[] = [[503, {}, { 'retry-after': '1' }], [429]];
  let answerLate = () => {};
  const late = new Promise<void>((resolve) => (answerLate = resolve));
  const application = await startApplication(async ({ method }) => {
    // Twice it turns the question away: the gateway says that nothing was done.
    if (method === 'busy') return busy.shift() ?? [200, { payload: 'at last' }];
    if (method === 'slow') await late;
    // What has become of it, nobody can say.
    return method === 'slow' ? [200, { payload: 'too late' }] : [Number(method), { payload: 'nonsense' }];
  });
  const node = await startNode({ env: hooked('RPC', application.url) });
  const proxy = await startProxy(node);
  const tw = client(proxy);
  await state(tw, 'open');
  const broken = tw.rpc('slow').catch((error) => error);
  await until('it is asked', () => application.asked.length === 1);
  proxy.cut();
  expect(await broken).toMatchObject({ code: 'timeout' });
  answerLate();
  await state(tw, 'open');
  expect(await tw.rpc('busy', null, { timeout: 20_000 })).toBe('at last');
  for (const status of ['500', '503', '502', '201']) {
    await expect(tw.rpc(status, null, { timeout: 20_000 })).rejects.toMatchObject({ code: 'timeout' });
  }
  const times = (wanted: string) => application.asked.filter(({ method }) => method === wanted).length;
  expect(['slow', 'busy', '500', '503', '502', '201'].map(times)).toEqual([1, 3, 1, 1, 1, 1]);
});

test('on a lesser transport a question waits for a WebSocket, or for its time', async () => {
  const application = await startApplication(() => [200, { payload: 'yes' }]);
  const node = await startNode({ env: hooked('RPC', application.url) });
  const proxy = await startProxy(node);
  proxy.blocked.add('/v1/ws');
  const tw = client(proxy, { upgradeAfter: 100 });
  await subscribed(listen(tw, 'room:1'));
  expect(tw.state).toMatchObject({ status: 'open', transport: 'sse' });
  await expect(tw.rpc('any', null, { timeout: 200 })).rejects.toMatchObject({ code: 'unavailable' });
  expect(application.asked).toEqual([]);
  const patient = tw.rpc('any', null, { timeout: 20_000 });
  proxy.blocked.clear();
  expect(await patient).toBe('yes');
});

test('an application that does not say whether it may log in: it waits and comes back, over the same transport', async () => {
  let isThere = false;
  const application = await startApplication(() => [isThere ? 204 : 503]);
  const node = await startNode({ env: { ...hooked('CONNECT', application.url), TIDEWIRE_AUTH__JWT__SECRET: SECRET } });
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256' })}.${part({ sub: 'ada', subscribe: ['*'], exp: Math.floor(Date.now() / 1000) + 3_600 })}`;
  let fetched = 0;
  const tw = client(node, {
    token: () => {
      fetched += 1;
      return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
    },
  });
  await until('two attempts', () => tw.states.filter(({ status }) => status === 'waiting').length > 1);
  for (const { reason } of tw.states as any[]) expect([undefined, 'unavailable', 4003]).toContain(reason?.code);
  isThere = true;
  await subscribed(listen(tw, 'room:1'));
  expect(tw.states.map((state: any) => state.transport).filter(Boolean)).not.toContain('sse');
  expect(fetched).toBe(1);
});
