// The npm package `eventsource` as a client: what a browser's EventSource would see.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Events, watchedFetch } from './lib/events.mjs';
import { sharedNode, startNode } from './lib/node.mjs';
import { publish } from './lib/publish.mjs';
import { until } from './lib/wait.mjs';

const node = sharedNode();

test('welcome, named events, the default event', async (t) => {
  const events = await Events.open(t, node, 'channel=es:a&channel=es:b', { names: ['headline'] });
  const { session, ...welcome } = events.welcome;
  assert.match(session, /^\S+$/);
  assert.deepEqual(welcome, { heartbeat: 15, channels: [{ channel: 'es:a' }, { channel: 'es:b' }] });

  await publish(node, 'es:a', { event: 'headline', payload: { title: 'Grüße 🌊' } });
  await publish(node, 'es:a', { event: 'unheard', payload: 0 });
  await publish(node, 'es:b', { payload: 'to onmessage' });
  await publish(node, 'es:b', { event: 'message', payload: [1, null] });
  // Live channels have no places, so there is no id to come back with.
  assert.deepEqual(await events.next(), { event: 'headline', data: '{"title":"Grüße 🌊"}', id: '' });
  assert.deepEqual(await events.next(), { event: 'message', data: '"to onmessage"', id: '' });
  assert.deepEqual(await events.next(), { event: 'message', data: '[1,null]', id: '' });
});

test('a payload that was written on many lines is one event', async (t) => {
  const events = await Events.open(t, node, 'channel=es:pretty');
  const body = '{"payload": {\r\n  "a": 1,\r  "b":\n\n 2\n}}';
  const path = '/v1/channels/es%3Apretty/messages';
  const headers = { 'content-type': 'application/json' };
  await fetch(node.url + path, { method: 'POST', headers, body });
  assert.deepEqual(JSON.parse((await events.next()).data), { a: 1, b: 2 });
});

test('text=1 writes a string bare, all its lines', async (t) => {
  const events = await Events.open(t, node, 'channel=es:text&text=1');
  for (const [text, read] of [
    ['one line', 'one line'],
    ['a\nb\rc\r\nd', 'a\nb\nc\nd'],
    ['\n\nindented:\n  x: y\n', '\n\nindented:\n  x: y\n'],
    ['data: not a field\nevent: nor this', 'data: not a field\nevent: nor this'],
    [' begins with a space', ' begins with a space'],
    ['', ''],
  ]) {
    await publish(node, 'es:text', { payload: text });
    // An event whose data is empty still is one, because it has a data line.
    assert.equal((await events.next()).data, read);
  }
  await publish(node, 'es:text', { payload: { still: 'JSON' } });
  assert.equal((await events.next()).data, '{"still":"JSON"}');
});

test('envelope=1 puts the whole frame into the data', async (t) => {
  const events = await Events.open(t, node, 'channel=es:envelope&envelope=1', { names: ['named'] });
  const sent = { event: 'named', payload: { x: 1 }, messageId: 'e-1' };
  await publish(node, 'es:envelope', sent);
  const { event, data } = await events.next();
  assert.equal(event, 'named');
  const { timestamp, ...frame } = JSON.parse(data);
  assert.ok(Date.parse(timestamp) > 0);
  assert.deepEqual(frame, { type: 'message', channel: 'es:envelope', ...sent });
});

test('bytes come as base64', async (t) => {
  const plain = await Events.open(t, node, 'channel=es:bytes');
  const text = await Events.open(t, node, 'channel=es:bytes&text=1');
  const bytes = Buffer.from([0, 255, 10, 13, 128]);
  const answer = await fetch(`${node.url}/v1/channels/es%3Abytes/messages`, {
    method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body: bytes,
  });
  assert.equal(answer.status, 200);
  assert.equal((await plain.next()).data, JSON.stringify(bytes.toString('base64')));
  assert.equal((await text.next()).data, bytes.toString('base64'));
});

test('what will not pass ends it for ever, with a status', async (t) => {
  for (const query of ['', 'channel=', 'channel=a%20b', 'channel=a&text=2', 'channel=a&text=1&envelope=1']) {
    const events = new Events(`${node.url}/v1/sse?${query}`, []);
    t.after(() => events.raw.close());
    assert.deepEqual(await events.failed(), { code: 400 }, query);
  }
});

test('many events come in order, each once', async (t) => {
  const events = await Events.open(t, node, 'channel=es:many');
  const count = 2_000;
  for (let from = 0; from < count; from += 100) {
    const messages = Array.from({ length: 100 }, (_, n) => ({ channel: 'es:many', payload: from + n }));
    const answer = await fetch(`${node.url}/v1/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages }),
    });
    assert.equal(answer.status, 200);
    for (const { payload } of messages) {
      assert.equal((await events.next()).data, String(payload));
    }
  }
});

test('it comes back after the node was killed, and waits as it was told', async (t) => {
  const mortal = await startNode(t);
  const [attempts, broken] = [[], []];
  const options = { fetch: watchedFetch(attempts) };
  const events = await Events.open(t, mortal, 'channel=es:back', { options });
  events.raw.addEventListener('error', () => broken.push(performance.now()));

  await mortal.restart(() => until('an attempt while the node is away', () => broken.length > 1));
  await events.find('tidewire:welcome');
  await publish(mortal, 'es:back', { payload: 'again' });
  assert.equal((await events.find('message')).data, '"again"');

  assert.ok(attempts[0].retry >= 1_000 && attempts[0].retry < 3_000, `retry: ${attempts[0].retry}`);
  for (let n = 1; n < attempts.length; n += 1) {
    const waited = attempts[n].began - broken[n - 1];
    // A timer may fire a millisecond early.
    assert.ok(waited > attempts[0].retry - 2, `told ${attempts[0].retry} ms, came after ${waited}`);
  }
});

test('a node that stops says so, and the stream comes back quickly', async (t) => {
  const leaving = await startNode(t, { env: { TIDEWIRE_DRAIN__TIME: '300ms' } });
  const attempts = [];
  const events = await Events.open(t, leaving, 'channel=es:leaving', {
    options: { fetch: watchedFetch(attempts) },
  });
  leaving.terminate();
  const { reconnect } = JSON.parse((await events.find('tidewire:shutdown')).data);
  assert.ok(reconnect >= 0 && reconnect <= 300, `reconnect: ${reconnect}`);
  assert.deepEqual(await leaving.ended(), { code: 0, signal: null });
  assert.ok(attempts[0].retry >= 50 && attempts[0].retry < 500, `retry: ${attempts[0].retry}`);
  await leaving.start(leaving.host);
  await events.find('tidewire:welcome');
});

test('a quiet stream has heartbeats that nobody sees', async (t) => {
  const quick = await startNode(t, { env: { TIDEWIRE_HEARTBEAT__SSE: '1s' } });
  const abort = new AbortController();
  t.after(() => abort.abort());
  const response = await fetch(`${quick.url}/v1/sse?channel=es:quiet`, { signal: abort.signal });
  assert.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  assert.equal(response.headers.get('cache-control'), 'no-store');
  assert.equal(response.headers.get('x-accel-buffering'), 'no');
  const events = await Events.open(t, quick, 'channel=es:quiet');
  let text = '';
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    if (/\n:\n\n(?:.|\n)*\n:\n\n/.test(text)) break;
  }
  await publish(quick, 'es:quiet', { payload: 1 });
  assert.equal((await events.next()).data, '1');
});
