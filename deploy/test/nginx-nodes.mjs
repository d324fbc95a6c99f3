// nginx in front of three real nodes that share a real Redis: streams arrive as they are
// published, survive a reload, and land on another node when theirs is gone.

import { numbered, publish, request, sse, sseOverHttp2, webSocket } from './clients.mjs';
import { connections, startNode, startNodes, startRedis } from './cluster.mjs';
import { check, ensure, same, stop, until } from './harness.mjs';
import { startNginx } from './nginx-process.mjs';

// A key by which nginx chooses this node: the one whose count rises is it.
async function keyOf(base, node) {
  for (let n = 0; n < 60; n += 1) {
    const before = await connections(node);
    const client = await webSocket(base, `/v1/ws?sticky=k${n}`);
    await client.next((frame) => frame.type === 'welcome');
    const here = await connections(node) > before;
    client.close();
    await until('the client is gone', async () => !here || await connections(node) === before);
    if (here) return `k${n}`;
  }
  throw new Error('no key leads to the node');
}

const welcome = (item) => item.type === 'welcome' || item.event === 'tidewire:welcome';

export async function nodes() {
  const redis = await startRedis();
  const all = await startNodes(redis, 3);
  const nginx = await startNginx(all.map((node) => node.port));
  const keys = [];
  for (const node of all) keys.push(await keyOf(nginx.plain, node));

  await everyWay(nginx, all, keys);
  await reload(nginx, keys);
  await draining(nginx, redis, all, keys);
  await killed(nginx, all, keys);
}

async function everyWay(nginx, all, keys) {
  await check('the page comes through', async () => {
    const page = await request(nginx.plain, '/');
    same([page.status, /<html/i.test(page.text)], [200, true]);
  });

  for (const [name, open] of [
    ['SSE over HTTP/1.1', () => sse(nginx.plain, '/v1/sse?channel=one')],
    ['SSE over TLS', () => sse(nginx.tls, '/v1/sse?channel=one')],
    ['SSE over HTTP/2', () => sseOverHttp2(nginx.tls, '/v1/sse?channel=one')],
    ['WebSocket', () => webSocket(nginx.plain, '/v1/ws?channel=one')],
    ['WebSocket over TLS', () => webSocket(nginx.tls, '/v1/ws?channel=one')],
  ]) {
    await check(`${name}: messages arrive one by one as they are published`, async () => {
      const client = await open();
      await client.next(welcome);
      for (let n = 0; n < 20; n += 1) {
        // The next one is published only once this one is here.
        await publish(all[n % 3].direct, 'one', { payload: { n } });
        await client.next(numbered(n), 3);
      }
      if (client.headers) same(client.headers['content-type'], 'text/event-stream; charset=utf-8');
      if (client.protocol) same(client.protocol, 'h2');
      client.close();
    });
  }

  await check('a publish through nginx reaches clients on all three nodes', async () => {
    const clients = [];
    for (const key of keys) {
      clients.push(await sse(nginx.plain, `/v1/sse?channel=all&sticky=${key}`));
      clients.push(await webSocket(nginx.plain, '/v1/ws?channel=all', { Cookie: `tidewire_sticky=${key}` }));
    }
    for (const client of clients) await client.next(welcome);
    for (const [n, key] of keys.entries()) {
      await publish(nginx.plain, 'all', { payload: { n } }, `?sticky=${key}`);
      for (const client of clients) await client.next(numbered(n));
    }
    for (const client of clients) client.close();
  });

  await check('a channel with a slash in its name', async () => {
    const client = await webSocket(nginx.plain, '/v1/ws?channel=room:a%2Fb');
    await client.next(welcome);
    await publish(nginx.plain, 'room:a/b', { payload: { n: 1 } });
    same((await client.next(numbered(1))).channel, 'room:a/b');
    client.close();
  });

  await check('metrics and health are not reachable through nginx', async () => {
    for (const path of ['/metrics', '/healthz', '/readyz', '/drain']) {
      same((await request(nginx.plain, path)).status, 404, path);
      same((await request(nginx.tls, path)).status, 404, path);
    }
  });
}

async function reload(nginx, keys) {
  await check('a reload cuts no stream, and new clients are served', async () => {
    const old = [
      await sse(nginx.plain, `/v1/sse?channel=reload&sticky=${keys[0]}`),
      await sseOverHttp2(nginx.tls, '/v1/sse?channel=reload'),
      await webSocket(nginx.plain, `/v1/ws?channel=reload&sticky=${keys[1]}`),
    ];
    for (const client of old) await client.next(welcome);
    await nginx.reload();
    const fresh = await webSocket(nginx.plain, '/v1/ws?channel=reload');
    await fresh.next(welcome);
    for (let n = 0; n < 5; n += 1) {
      await publish(nginx.plain, 'reload', { payload: { n } });
      for (const client of [...old, fresh]) await client.next(numbered(n));
    }
    for (const client of [...old, fresh]) {
      ensure(client.isOpen(), 'a stream was cut');
      client.close();
    }
  });
}

async function draining(nginx, redis, all, keys) {
  await check('a node that is told to stop: its clients are told and land on another', async () => {
    const [sticky, node] = [`channel=drain&sticky=${keys[0]}`, all[0]];
    const socket = await webSocket(nginx.plain, `/v1/ws?${sticky}`);
    const stream = await sse(nginx.plain, `/v1/sse?${sticky}`);
    for (const client of [socket, stream]) await client.next(welcome);
    node.child.kill('SIGTERM');
    await socket.next((frame) => frame.type === 'shutdown', 20);
    same(await socket.end(20), 'closed 1012');
    await stream.next((event) => event.event === 'tidewire:shutdown', 20);
    // At once, whether the node still runs or not. An EventSource may be sent away once more.
    const again = await webSocket(nginx.plain, `/v1/ws?${sticky}`);
    await again.next(welcome);
    const stream2 = await until('a stream', async () => {
      const one = await sse(nginx.plain, `/v1/sse?${sticky}`);
      return one.next(welcome).then(() => one, () => undefined);
    });
    await publish(all[1].direct, 'drain', { payload: { n: 1 } });
    for (const client of [again, stream2]) {
      await client.next(numbered(1));
      client.close();
    }
    await node.child.ended;
    same(node.child.exitCode, 0, 'exit code');
  }, 60);

  await check('a node that comes back gets clients again', async () => {
    all[0] = await startNode(redis, all[0].ports);
    await until('a client', async () => {
      const client = await webSocket(nginx.plain, `/v1/ws?sticky=${keys[0]}`);
      await client.next(welcome);
      const here = await connections(all[0]) > 0;
      client.close();
      return here;
    });
  });
}

async function killed(nginx, all, keys) {
  await check('a node that is killed: its clients land on another at once', async () => {
    const path = `channel=killed&sticky=${keys[1]}`;
    const clients = [await webSocket(nginx.plain, `/v1/ws?${path}`), await sse(nginx.plain, `/v1/sse?${path}`)];
    for (const client of clients) await client.next(welcome);
    await stop(all[1].child, 'SIGKILL');
    for (const client of clients) await client.end();
    const started = Date.now();
    const again = [await webSocket(nginx.plain, `/v1/ws?${path}`), await sse(nginx.plain, `/v1/sse?${path}`)];
    for (const client of again) await client.next(welcome);
    ensure(Date.now() - started < 2000, `took ${Date.now() - started} ms`);
    await publish(all[2].direct, 'killed', { payload: { n: 1 } });
    for (const client of again) {
      await client.next(numbered(1));
      client.close();
    }
  });

  await check('publishes while a node is killed: an ack means once, no message comes twice', async () => {
    const client = await webSocket(nginx.plain, `/v1/ws?channel=once&sticky=${keys[0]}`);
    await client.next(welcome);
    const acked = new Set();
    const unsure = new Set();
    // Through the node that will be killed, until it is.
    const sender = (async () => {
      for (let n = 0; n < 400; n += 1) {
        await publish(nginx.plain, 'once', { payload: { n } }, `?sticky=${keys[2]}`)
          .then(() => acked.add(n), () => unsure.add(n));
        if (n === 100) stop(all[2].child, 'SIGKILL');
      }
      await publish(nginx.plain, 'once', { payload: { last: true } }, `?sticky=${keys[0]}`);
    })();
    const arrived = [];
    for (;;) {
      const { payload } = await client.next((frame) => frame.type === 'message');
      if (payload.last) break;
      arrived.push(payload.n);
    }
    await sender;
    same(new Set(arrived).size, arrived.length, 'messages that arrived, each once');
    const lost = [...acked].filter((n) => !arrived.includes(n));
    same(lost, [], 'acknowledged and not arrived');
    ensure(unsure.size <= 1, `${unsure.size} publishes failed`);
    client.close();
  });
}
