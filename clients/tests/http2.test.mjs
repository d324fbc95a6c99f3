// Node's http2 module: HTTP/2 without TLS, by prior knowledge, as a proxy would speak it.

import assert from 'node:assert/strict';
import http2 from 'node:http2';
import { once } from 'node:events';
import { test } from 'node:test';
import { sharedNode, startNode } from './lib/node.mjs';
import { path, publish } from './lib/publish.mjs';
import { Inbox, soon, until } from './lib/wait.mjs';

const node = sharedNode();

/** A connection that ends with the test. */
async function connect(t, to = node) {
  const session = http2.connect(to.url);
  t.after(() => session.destroy());
  await soon('a connection', once(session, 'connect'));
  return session;
}

/** One request: `{status, headers, text}`. */
async function ask(session, headers, body) {
  const stream = session.request(headers, { endStream: body === undefined });
  stream.setEncoding('utf8');
  let text = '';
  stream.on('data', (part) => { text += part; });
  if (body !== undefined) stream.end(body);
  const ended = once(stream, 'end');
  const [head] = await soon('a head', once(stream, 'response'));
  await soon('the end of a body', ended);
  return { status: head[':status'], headers: head, text };
}

function publishing(channel) {
  return { ':method': 'POST', ':path': path(channel), 'content-type': 'application/json' };
}

/** An event stream: its data lines as parsed JSON, `tidewire:` events left out, after the welcome. */
async function stream(session, channel) {
  const request = session.request({ ':path': `/v1/sse?channel=${encodeURIComponent(channel)}` });
  const inbox = new Inbox();
  let rest = '';
  request.setEncoding('utf8');
  request.on('error', (error) => inbox.close(error.message));
  request.on('close', () => inbox.close('closed'));
  request.on('data', (part) => {
    const events = (rest + part).split('\n\n');
    rest = events.pop();
    for (const event of events) inbox.put(event);
  });
  const [head] = await soon('a head', once(request, 'response'));
  assert.equal(head[':status'], 200);
  assert.equal(head['content-type'], 'text/event-stream; charset=utf-8');
  assert.equal(head.connection, undefined);
  await inbox.find((event) => event.startsWith('event: tidewire:welcome\n'));
  const isMessage = (event) => event.startsWith('data: ');
  return {
    request,
    next: async () => JSON.parse((await inbox.find(isMessage)).slice('data: '.length)),
    find: (fits) => inbox.find(fits),
    ended: () => inbox.end(),
  };
}

test('requests and their errors', async (t) => {
  const session = await connect(t);
  const published = await ask(session, publishing('h2:a'), '{"payload":1,"messageId":"m"}');
  assert.deepEqual([published.status, published.text], [200, '{"messageId":"m"}']);
  const bad = await ask(session, publishing('h2:a'), 'no JSON');
  assert.deepEqual([bad.status, JSON.parse(bad.text).code], [400, 'bad_request']);
  const large = await ask(session, publishing('h2:a'), `{"payload":"${'x'.repeat(70_000)}"}`);
  assert.deepEqual([large.status, JSON.parse(large.text).code], [413, 'too_large']);
  const foreign = await ask(session, { ':path': '/v1/channels', origin: 'https://evil.example' });
  assert.equal(foreign.status, 403);
  const rebound = await ask(session, { ':path': '/v1/channels', ':authority': 'evil.example' });
  assert.equal(rebound.status, 403);
});

test('an event stream among requests on one connection', async (t) => {
  const session = await connect(t);
  const events = await stream(session, 'h2:mixed');
  for (let n = 0; n < 100; n += 1) {
    await ask(session, publishing('h2:mixed'), JSON.stringify({ payload: n }));
    assert.equal(await events.next(), n);
  }
});

test('many event streams on one connection', async (t) => {
  const session = await connect(t);
  const streams = await Promise.all(
    Array.from({ length: 100 }, (_, n) => stream(session, `h2:many:${n % 10}`)));
  for (let n = 0; n < 10; n += 1) await publish(node, `h2:many:${n}`, { payload: n });
  for (const [n, events] of streams.entries()) assert.equal(await events.next(), n % 10);

  // Closing one leaves the others, and the node forgets it.
  const subscribers = async () => {
    const answer = await ask(session, { ':path': '/v1/channels?prefix=h2:many:0' });
    return JSON.parse(answer.text).channels[0].subscribers;
  };
  assert.equal(await subscribers(), 10);
  streams[0].request.close(http2.constants.NGHTTP2_CANCEL);
  await until('the node forgets a stream', async () => (await subscribers()) === 9);
  await publish(node, 'h2:many:0', { payload: 'rest' });
  assert.equal(await streams[10].next(), 'rest');
});

test('a stream that is not read delays no other', async (t) => {
  const session = await connect(t);
  const [stuck, fine] = [await stream(session, 'h2:big'), await stream(session, 'h2:big')];
  // Its flow-control window fills, and its outbox after that.
  stuck.request.pause();
  const payload = 'x'.repeat(60_000);
  for (let n = 0; n < 40; n += 1) {
    await publish(node, 'h2:big', { payload: `${n} ${payload}` });
    assert.match(await fine.next(), new RegExp(`^${n} x`));
  }
  const slow = 'tidewire_connections_closed_total{transport="sse",reason="slow"}';
  await until('the one that is not read is let go', async () => (await node.metric(slow)) === 1);
});

test('a node that stops ends its streams in order', async (t) => {
  const leaving = await startNode(t, { env: { TIDEWIRE_DRAIN__TIME: '300ms' } });
  const session = await connect(t, leaving);
  const events = await stream(session, 'h2:leaving');
  leaving.terminate();
  await events.find((event) => event.startsWith('event: tidewire:shutdown\n'));
  assert.equal(await events.ended(), 'closed');
  assert.deepEqual(await leaving.ended(), { code: 0, signal: null });
});
