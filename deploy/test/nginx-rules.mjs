// The rules of the nginx configuration, one by one, against scripted nodes: what reaches a
// node, what is tried again and what never is, what is logged. The streams themselves are
// tested with real nodes in nginx-nodes.mjs.

import http from 'node:http';
import { request, sse, webSocket } from './clients.mjs';
import { atEnd, check, ensure, same, until } from './harness.mjs';
import { freePort } from '../../clients/tests/lib/ports.mjs';
import { startNginx } from './nginx-process.mjs';

// A node that records what reaches it and answers as the test says.
async function scriptedNode(name) {
  const node = { name, seen: [], answer: ok, upgrade: refuse, port: await freePort() };
  const server = http.createServer((incoming, answer) => {
    let body = '';
    incoming.on('data', (data) => { body += data; });
    incoming.on('end', () => {
      node.seen.push({ method: incoming.method, url: incoming.url, headers: incoming.headers, body });
      node.answer(incoming, answer, node);
    });
  });
  server.on('upgrade', (incoming, socket) => {
    node.seen.push({ method: incoming.method, url: incoming.url, headers: incoming.headers });
    node.upgrade(socket);
  });
  node.open = () => new Promise((resolve) => server.listen(node.port, '127.0.0.1', resolve));
  node.close = () => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
  atEnd(() => node.close());
  await node.open();
  return node;
}

const ok = (_, answer, node) => answer.end(node.name);
const busy = (_, answer) => answer.writeHead(503, { 'content-type': 'application/problem+json' }).end('{"code":"unavailable"}');
const refuse = (socket) => socket.end('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n');
// Takes the request and breaks the connection: nobody can know whether it was done.
const breaks = (incoming) => incoming.socket.destroy();

const post = (base, path = '/v1/channels/news/messages') => request(base, path, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: '{"payload":1}',
});

export async function rules() {
  const nodes = [await scriptedNode('a'), await scriptedNode('b'), await scriptedNode('c')];
  // A node that failed is left out for a second instead of three: these checks wait it out.
  const hasty = { 'site/nodes.conf': (text) => text.replaceAll('fail_timeout=3s', 'fail_timeout=1s') };
  const nginx = await startNginx(nodes.map((node) => node.port), hasty);
  const reset = async () => {
    for (const node of nodes) Object.assign(node, { seen: [], answer: ok, upgrade: refuse });
    // Those that failed are left out for a while: wait until all are asked again.
    await until('all nodes are asked', async () => {
      for (const key of 'abcdefghijkl') await request(nginx.plain, `/?sticky=${key}`);
      return nodes.every((node) => node.seen.length > 0);
    });
    for (const node of nodes) node.seen = [];
  };
  const seen = () => nodes.flatMap((node) => node.seen);

  await whatReachesANode(nginx, reset, seen);
  await whichNode(nginx, reset, nodes);
  await whatIsTriedAgain(nginx, reset, seen, nodes);
  await noNode(nginx, reset, nodes);
  await nothingSecretIsLogged(nginx, reset, nodes);
  await nginx.stop();
  await limits(nodes);
}

async function whatReachesANode(nginx, reset, seen) {
  await check('a path reaches the node as it was sent, escaped slashes and all', async () => {
    await reset();
    const paths = [
      '/v1/channels/room%2Fa/messages?since=1%2F2&x=%20',
      '/v1/channels/a%2F%2e%2e%2fb%20c%C3%A9/messages',
      '/v1/sse?channel=a%2Fb&channel=c//d',
    ];
    for (const path of paths) await request(nginx.plain, path);
    same(seen().map((one) => one.url).sort(), [...paths].sort());
  });

  await check('Host and port stay, who the client is is overwritten', async () => {
    await reset();
    await request(nginx.plain, '/v1/sse', {
      headers: {
        Host: 'push.example:8080',
        'X-Forwarded-For': '6.6.6.6',
        'X-Forwarded-Proto': 'gopher',
        'X-Forwarded-Host': 'evil.example',
        'X-Real-IP': '6.6.6.6',
        Forwarded: 'for=6.6.6.6',
      },
    });
    const { headers } = seen()[0];
    same(headers.host, 'push.example:8080', 'host');
    same(headers['x-forwarded-for'], '127.0.0.1', 'x-forwarded-for');
    same(headers['x-forwarded-proto'], 'http', 'x-forwarded-proto');
    for (const name of ['forwarded', 'x-real-ip', 'x-forwarded-host']) same(headers[name], undefined, name);
  });

  await check('over TLS the node is told so', async () => {
    await reset();
    await request(nginx.tls, '/');
    same(seen()[0].headers['x-forwarded-proto'], 'https');
  });

  await check('no upgrade but a WebSocket\'s is passed on', async () => {
    await reset();
    const headers = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABk' };
    await request(nginx.plain, '/', { headers });
    same([seen()[0].headers.upgrade, seen()[0].headers.connection], [undefined, undefined]);
  });

  await check('the operators\' paths are not reachable, however they are spelled', async () => {
    await reset();
    const paths = ['/metrics', '/metrics/', '//metrics', '/%6detrics', '/v1/../metrics', '/v1/%2e%2e/metrics',
      '/metrics?x', '/metrics%3fx/../metrics', '/healthz', '/readyz', '/drain', '/./drain'];
    for (const path of paths) same((await request(nginx.plain, path)).status, 404, path);
    same((await post(nginx.plain, '/drain')).status, 404, 'POST /drain');
    same(seen().length, 0, 'requests that reached a node');
  });

  await check('a body over the limit of messages still reaches the node, one of megabytes does not', async () => {
    await reset();
    const send = (size) => request(nginx.plain, '/v1/messages', { method: 'POST', body: 'x'.repeat(size) });
    same((await send(1 << 20)).status, 200, '1 MiB');
    same((await send(3 << 20)).status, 413, '3 MiB');
    same(seen().map((one) => one.body.length), [1 << 20]);
  });
}

async function whichNode(nginx, reset, nodes) {
  const asked = async (path, headers) => (await request(nginx.plain, path, { headers })).text;

  await check('one key, one node; many keys, all nodes; the query goes before the cookie', async () => {
    await reset();
    const byKey = {};
    for (let n = 0; n < 40; n += 1) byKey[n] = await asked(`/?sticky=${n}`);
    same([...new Set(Object.values(byKey))].sort(), nodes.map((node) => node.name));
    const [one, other] = [0, Object.keys(byKey).find((n) => byKey[n] !== byKey[0])];
    for (let n = 0; n < 5; n += 1) same(await asked(`/?sticky=${one}`), byKey[one], 'again');
    same(await asked('/', { Cookie: `x=1; tidewire_sticky=${other}` }), byKey[other], 'by cookie');
    same(await asked(`/?sticky=${one}`, { Cookie: `tidewire_sticky=${other}` }), byKey[one], 'both');
    // Without a key: by address, which is the same for all here.
    const byAddress = new Set();
    for (let n = 0; n < 10; n += 1) byAddress.add(await asked('/'));
    same(byAddress.size, 1, 'nodes by address');
  });
}

async function whatIsTriedAgain(nginx, reset, seen, nodes) {
  const setAll = (answer) => nodes.forEach((node) => { node.answer = answer; });

  await check('a GET that a draining node answers with 503 goes on to another', async () => {
    await reset();
    const first = (await request(nginx.plain, '/')).text;
    nodes.find((node) => node.name === first).answer = busy;
    const answer = await request(nginx.plain, '/');
    same(answer.status, 200);
    ensure(answer.text !== first, 'another node');
  });

  await check('a WebSocket that a draining node refuses with 503 goes on to another', async () => {
    await reset();
    const first = (await request(nginx.plain, '/')).text;
    for (const node of nodes) {
      if (node.name !== first) node.upgrade = (socket) => socket.end('HTTP/1.1 418 I am a teapot\r\ncontent-length: 0\r\n\r\n');
    }
    const refusal = await webSocket(nginx.plain, '/v1/ws').then(() => undefined, (error) => error.message);
    same(refusal, 'refused with 418');
    same(seen().filter((one) => one.headers.upgrade === 'websocket').length, 2, 'nodes asked');
  });

  await check('a publish that a node answers with 503 is not repeated, the answer comes through', async () => {
    await reset();
    setAll(busy);
    const answer = await post(nginx.plain);
    same([answer.status, answer.text], [503, '{"code":"unavailable"}']);
    same(seen().length, 1, 'times it was sent');
  });

  await check('a publish that is cut off is not repeated: the client is told that nobody knows', async () => {
    await reset();
    setAll(breaks);
    const answer = await post(nginx.plain);
    same([answer.status, answer.json().code, answer.headers['content-type']], [504, 'timeout', 'application/problem+json']);
    same(seen().length, 1, 'times it was sent');
  });

  await check('a publish that reached no node goes on to another, once', async () => {
    await reset();
    const first = (await post(nginx.plain)).text;
    const dead = nodes.find((node) => node.name === first);
    await dead.close();
    nodes.forEach((node) => { node.seen = []; });
    same((await post(nginx.plain)).status, 200);
    same(seen().length, 1, 'times it was sent');
    await dead.open();
  });

  await check('a GET that is cut off goes on to another', async () => {
    await reset();
    const first = (await request(nginx.plain, '/')).text;
    nodes.find((node) => node.name === first).answer = breaks;
    same((await request(nginx.plain, '/')).status, 200);
  });
}

async function noNode(nginx, reset, nodes) {
  await check('with no node left an EventSource is asked to come back, the rest gets a problem', async () => {
    await reset();
    for (const node of nodes) await node.close();
    const stream = await sse(nginx.plain, '/v1/sse?channel=news');
    same([stream.status, stream.headers['content-type']], [200, 'text/event-stream; charset=utf-8']);
    const { retry } = await stream.next();
    ensure(Number(retry) >= 1000 && Number(retry) <= 3400, `retry: ${retry}`);
    await stream.end();
    const get = await request(nginx.plain, '/');
    same([get.status, get.json().code], [503, 'unavailable'], 'GET');
    const posted = await post(nginx.plain);
    same([posted.status, posted.json().code], [504, 'timeout'], 'POST');
    const refusal = await webSocket(nginx.plain, '/v1/ws').then(() => undefined, (error) => error.message);
    same(refusal, 'refused with 503', 'WebSocket');
  });

  await check('nodes that come back are asked again within seconds', async () => {
    for (const node of nodes) await node.open();
    await until('an answer', async () => (await request(nginx.plain, '/')).status === 200, 6);
  });
}

async function nothingSecretIsLogged(nginx, reset, nodes) {
  await check('no token in any log, not even of requests that fail', async () => {
    await reset();
    const headers = { Authorization: 'Bearer SECRET', Cookie: 'tidewire_token=SECRET', Referer: 'http://x/?token=SECRET' };
    const ask = () => Promise.all([
      request(nginx.plain, '/v1/sse?channel=news&token=SECRET', { headers }),
      request(nginx.plain, '/metrics?token=SECRET', { headers }),
      post(nginx.plain, '/v1/channels/news/messages?token=SECRET'),
      webSocket(nginx.plain, '/v1/ws?token=SECRET', headers).catch(() => {}),
    ]);
    await ask();
    nodes.forEach((node) => { node.answer = breaks; });
    await ask();
    for (const node of nodes) await node.close();
    await ask();
    await until('logged', () => nginx.logs().split('"path":"/metrics"').length > 3);
    ensure(!nginx.logs().includes('SECRET'), `a token in: ${nginx.logs().split('\n').find((line) => line.includes('SECRET'))}`);
    for (const node of nodes) await node.open();
  });
}

// The bound on streams by address, made small.
async function limits(nodes) {
  const few = { 'locations.conf': (text) => text.replace('tidewire_address 2000', 'tidewire_address 3') };
  const nginx = await startNginx(nodes.map((node) => node.port), few);
  for (const node of nodes) {
    node.answer = (_, answer) => {
      answer.writeHead(200, { 'content-type': 'text/event-stream' });
      answer.write(': hello\n\n');
    };
  }
  await check('too many from one address: EventSources are asked to come back, the rest gets 429', async () => {
    const streams = [];
    for (let n = 0; n < 3; n += 1) streams.push(await sse(nginx.plain, '/v1/sse'));
    for (const stream of streams) same((await stream.next()).comment, 'hello');
    const more = await sse(nginx.plain, '/v1/sse');
    same(more.status, 200);
    ensure(Number((await more.next()).retry) >= 1000, 'retry');
    await more.end();
    const get = await request(nginx.plain, '/');
    same([get.status, get.json().code], [429, 'too_many']);
    streams[0].close();
    await until('room again', async () => (await sse(nginx.plain, '/v1/sse')).next().then((item) => item.comment === 'hello'));
  });
  await nginx.stop();
}
