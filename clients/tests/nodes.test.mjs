// Several nodes on one Redis: what is published anywhere arrives everywhere.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Events } from './lib/events.mjs';
import { Node, startNode } from './lib/node.mjs';
import { post, publish } from './lib/publish.mjs';
import { Redis, startRedis } from './lib/redis.mjs';
import { Socket } from './lib/socket.mjs';
import { until } from './lib/wait.mjs';

const redis = new Redis();
const nodes = [];
before(async () => {
  await redis.start();
  for (let n = 0; n < 3; n += 1) nodes.push(new Node({ flags: ['--redis', redis.url] }));
  await Promise.all(nodes.map((node) => node.start()));
});
after(async () => {
  await Promise.all(nodes.map((node) => node.end()));
  await redis.end();
});

/** A WebSocket and an event stream on each of the nodes. */
async function subscribers(t, to, channel) {
  const opened = to.flatMap((node) => [
    Socket.open(t, node, { channels: [channel] }),
    Events.open(t, node, `channel=${encodeURIComponent(channel)}&envelope=1`, { names: ['e', 'headline'] }),
  ]);
  return Promise.all(opened);
}

/** The next message of either kind of client, as the `message` frame. */
async function message(client) {
  if (client instanceof Socket) return client.message();
  for (;;) {
    const { event, data } = await client.next();
    if (!event.startsWith('tidewire:')) return JSON.parse(data);
  }
}

test('a publish on any node reaches WebSockets and event streams on all', async (t) => {
  const clients = await subscribers(t, nodes, 'nodes:all');
  for (const [n, node] of nodes.entries()) {
    await publish(node, 'nodes:all', { event: 'e', payload: { http: n }, messageId: `http-${n}` });
    const sender = await Socket.open(t, node);
    const frame = { type: 'publish', id: 1, channel: 'nodes:all', event: 'e', payload: { ws: n }, messageId: `ws-${n}` };
    assert.deepEqual(await sender.ask(frame), { type: 'ack', id: 1, messageId: `ws-${n}` });
    const from = { session: sender.welcome.session };
    const times = new Set();
    for (const client of clients) {
      const { timestamp, ...byHttp } = await message(client);
      const common = { type: 'message', channel: 'nodes:all', event: 'e' };
      assert.deepEqual(byHttp, { ...common, payload: { http: n }, messageId: `http-${n}` });
      const { timestamp: _, ...byWebSocket } = await message(client);
      assert.deepEqual(byWebSocket, { ...common, payload: { ws: n }, messageId: `ws-${n}`, from });
      times.add(timestamp);
    }
    assert.equal(times.size, 1, 'the accepting node gives the timestamp, the same for all');
  }
});

test('what one node publishes in a row arrives in order, each once', async (t) => {
  const clients = await subscribers(t, nodes, 'nodes:order');
  const rows = 40;
  for (let from = 0; from < rows; from += 1) {
    const messages = Array.from({ length: 50 }, (_, n) => ({
      channel: 'nodes:order', event: 'e', payload: from * 50 + n,
    }));
    const answer = await fetch(`${nodes[0].url}/v1/messages`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ messages }),
    });
    assert.equal(answer.status, 200);
    for (const client of clients) {
      for (const { payload } of messages) assert.equal((await message(client)).payload, payload);
    }
  }
});

test('a plain PUBLISH reaches all, whatever its body', async (t) => {
  const clients = await subscribers(t, nodes, 'news');
  for (const [body, event, payload] of [
    ['{"event":"headline","payload":{"title":"hi"}}', 'headline', { title: 'hi' }],
    ['{"payload":[1]}', 'message', [1]],
    ['{"payload":1,"more":2}', 'message', { payload: 1, more: 2 }],
    ['"JSON"', 'message', 'JSON'],
    ['no JSON, but text: ü', 'message', 'no JSON, but text: ü'],
    ['', 'message', ''],
  ]) {
    assert.equal(await redis.cli('PUBLISH', 'tidewire:news', body), '3');
    for (const client of clients) {
      const got = await message(client);
      assert.deepEqual([got.event, got.payload, got.messageId], [event, payload, undefined]);
    }
  }
});

test('what is published after the ack of a subscribe arrives', async (t) => {
  const sockets = await Promise.all(nodes.map((node) => Socket.open(t, node)));
  for (let n = 0; n < 60; n += 1) {
    const [subscriber, publisher] = [sockets[n % 3], nodes[(n + 1) % 3]];
    const channel = `nodes:fresh:${n}`;
    assert.equal((await subscriber.ask({ type: 'subscribe', id: n, channel })).type, 'ack');
    await publish(publisher, channel, { payload: n });
    assert.equal((await subscriber.message()).payload, n);
  }
});

test('exclude and echo: false hold across nodes', async (t) => {
  const [one, two] = await Promise.all(
    nodes.slice(0, 2).map((node) => Socket.open(t, node, { channels: ['nodes:exclude'] })));
  await publish(nodes[2], 'nodes:exclude', { payload: 1, exclude: one.welcome.session });
  await two.ask({ type: 'publish', id: 1, channel: 'nodes:exclude', payload: 2, echo: false });
  await publish(nodes[0], 'nodes:exclude', { payload: 3 });
  const payloads = async (socket) => [(await socket.message()).payload, (await socket.message()).payload];
  assert.deepEqual(await payloads(one), [2, 3]);
  // The ack of its own publish was taken by `ask`, and the first message perhaps with it.
  const last = await two.find((frame) => frame.payload === 3 || frame.payload === 2);
  assert.equal(last.payload, 3);
});

test('Redis has one subscription per channel and node, and none without a subscriber', async (t) => {
  const own = await startNode(t, { flags: ['--redis', redis.url], env: { TIDEWIRE_BROKER__LINGER: '0s' } });
  const count = async () => (await redis.cli('PUBSUB', 'NUMSUB', 'tidewire:nodes:one')).split('\n')[1];
  const sockets = await Promise.all(
    Array.from({ length: 5 }, () => Socket.open(t, own, { channels: ['nodes:one'] })));
  assert.equal(await count(), '1');
  for (const socket of sockets) socket.raw.close();
  await until('the node lets go', async () => (await count()) === '0');
});

test('Redis goes and comes back: nobody is disconnected, all are told', async (t) => {
  const mortal = await startRedis(t);
  const options = { flags: ['--redis', mortal.url] };
  const pair = await Promise.all([startNode(t, options), startNode(t, options)]);
  const clients = await subscribers(t, pair, 'nodes:gap');

  await mortal.kill();
  for (const node of pair) assert.ok((await node.unready()).length > 0);
  const began = performance.now();
  const answer = await post(pair[0], 'nodes:gap', { payload: 'lost', messageId: 'again' });
  const problem = await answer.json();
  assert.ok(performance.now() - began < 4_000, 'it fails within 2 s');
  assert.deepEqual([answer.status, problem.code, problem.messageId], [503, 'unavailable', 'again']);

  await mortal.start();
  for (const node of pair) await node.ready();
  for (const client of clients) {
    const gap = client instanceof Socket
      ? await client.find(({ type }) => type === 'gap')
      : JSON.parse((await client.find('tidewire:gap')).data);
    assert.equal(gap.channel, 'nodes:gap');
  }
  await publish(pair[1], 'nodes:gap', { event: 'e', payload: 'after' });
  for (const client of clients) assert.equal((await message(client)).payload, 'after');
});

test('a killed node takes only its own clients with it', async (t) => {
  const mortal = await startNode(t, { flags: ['--redis', redis.url] });
  const [theirs, ...others] = await Promise.all(
    [mortal, ...nodes].map((node) => Socket.open(t, node, { channels: ['nodes:killed'] })));
  await mortal.kill();
  assert.equal((await theirs.closed()).code, 1006);
  await publish(nodes[1], 'nodes:killed', { payload: 'to the rest' });
  for (const socket of others) assert.equal((await socket.message()).payload, 'to the rest');
});
