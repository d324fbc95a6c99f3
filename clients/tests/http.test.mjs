// Node's fetch over HTTP/1.1: publishing and its errors, and who may call from a browser.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { sharedNode, startNode } from './lib/node.mjs';
import { path, post } from './lib/publish.mjs';
import { Socket, refused } from './lib/socket.mjs';
import { soon } from './lib/wait.mjs';

const node = sharedNode();
const JSON_TYPE = { 'content-type': 'application/json' };

/** Status and code of an error, whose form is checked. */
async function problem(answer) {
  assert.equal(answer.headers.get('content-type'), 'application/problem+json');
  const body = await answer.json();
  assert.equal(body.status, answer.status);
  assert.ok(body.title && body.detail, JSON.stringify(body));
  return [answer.status, body.code];
}

/** A request whose headers fetch would not let through; gives status, headers and body. */
function request(url, options = {}, body = undefined) {
  const answered = new Promise((resolve, reject) => {
    const sent = http.request(url, { agent: false, ...options }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
  return soon('an answer', answered);
}

test('publishing JSON, text and bytes', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['http:forms', 'http:/…%2F'] });
  const send = (headers, body, query = '', channel = 'http:forms') =>
    fetch(node.url + path(channel) + query, { method: 'POST', headers, body });

  const json = await post(node, 'http:forms', { event: 'e', payload: [true], messageId: 'j' });
  assert.equal(json.headers.get('content-type'), 'application/json');
  assert.deepEqual(await json.json(), { messageId: 'j' });
  const text = await send(
    { 'content-type': 'text/plain; charset=utf-8', 'idempotency-key': 't' }, 'Grüße', '?event=named');
  assert.deepEqual(await text.json(), { messageId: 't' });
  const bytes = await send({ 'content-type': 'application/octet-stream' }, new Uint8Array([0, 255]));
  assert.equal(bytes.status, 200);
  assert.equal((await post(node, 'http:/…%2F', { payload: 1 })).status, 200);

  const read = ({ channel, event, payload, encoding }) => ({ channel, event, payload, encoding });
  assert.deepEqual((await socket.take(4)).map(read), [
    { channel: 'http:forms', event: 'e', payload: [true], encoding: undefined },
    { channel: 'http:forms', event: 'named', payload: 'Grüße', encoding: undefined },
    { channel: 'http:forms', event: 'message', payload: 'AP8=', encoding: 'base64' },
    { channel: 'http:/…%2F', event: 'message', payload: 1, encoding: undefined },
  ]);
});

test('publishing many at once answers each in order', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['http:b1', 'http:b2'] });
  const answer = await fetch(`${node.url}/v1/messages`, {
    method: 'POST',
    headers: JSON_TYPE,
    body: JSON.stringify({
      messages: [
        { channel: 'http:b1', payload: 1, messageId: 'one' },
        { channel: 'no good', payload: 2 },
        { channels: ['http:b1', 'http:b2'], payload: 3, messageId: 'three' },
      ],
    }),
  });
  const { results } = await answer.json();
  assert.equal(results[1].code, 'bad_channel');
  results.splice(1, 1);
  assert.deepEqual(results, [
    { channel: 'http:b1', messageId: 'one' },
    { channel: 'http:b1', messageId: 'three' },
    { channel: 'http:b2', messageId: 'three' },
  ]);
  const got = (await socket.take(3)).map(({ channel, payload }) => `${channel} ${payload}`);
  assert.deepEqual(got.sort(), ['http:b1 1', 'http:b1 3', 'http:b2 3']);
});

test('what is wrong with a publish is told', async () => {
  const send = (url, headers, body, method = 'POST') =>
    fetch(node.url + url, { method, headers, body }).then(problem);
  const fine = path('http:x');
  assert.deepEqual(await send(fine, { 'content-type': 'application/xml' }, '<x/>'), [415, 'unsupported_type']);
  assert.deepEqual(await send(fine, JSON_TYPE, ''), [400, 'bad_request']);
  assert.deepEqual(await send(fine, JSON_TYPE, '[1]'), [400, 'bad_request']);
  assert.deepEqual(await send(fine, JSON_TYPE, '{"payload":1,"unknown":2}'), [400, 'bad_request']);
  assert.deepEqual(await send(fine, JSON_TYPE, `{"payload":"${'x'.repeat(65_536)}"}`), [413, 'too_large']);
  assert.deepEqual(await send(path('a b'), JSON_TYPE, '{"payload":1}'), [400, 'bad_channel']);
  assert.deepEqual(await send('/v1/channels/%zz/messages', JSON_TYPE, '{"payload":1}'), [400, 'bad_request']);
  assert.deepEqual(await send('/v1/poll', {}, undefined, 'GET'), [400, 'bad_request']);
  assert.deepEqual(await send('/v1/nodes', {}, undefined, 'GET'), [404, 'not_found']);
  const wrong = await fetch(node.url + fine, { method: 'DELETE' });
  assert.deepEqual(await problem(wrong), [405, 'method_not_allowed']);
  assert.match(wrong.headers.get('allow'), /POST/);
});

test('the channels of this node and their subscribers', async (t) => {
  await Socket.open(t, node, { channels: ['listed:1', 'listed:2'] });
  await Socket.open(t, node, { channels: ['listed:2'] });
  const answer = await (await fetch(`${node.url}/v1/channels?prefix=listed:`)).json();
  assert.deepEqual(answer.channels, [
    { channel: 'listed:1', subscribers: 1 },
    { channel: 'listed:2', subscribers: 2 },
  ]);
});

test('a page from another port of this machine may call', async () => {
  for (const origin of ['http://localhost:5173', 'http://127.0.0.1:1', 'http://[::1]:3000', node.url]) {
    const preflight = await request(node.url + path('http:cors'), {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type',
      },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers['access-control-allow-origin'], origin);
    assert.match(preflight.headers['access-control-allow-methods'], /POST/);
    assert.match(preflight.headers['access-control-allow-headers'], /content-type/);
    assert.match(preflight.headers.vary, /origin/i);

    const options = { method: 'POST', headers: { origin, ...JSON_TYPE } };
    const posted = await request(node.url + path('http:cors'), options, '{"payload":1}');
    assert.equal(posted.status, 200);
    assert.equal(posted.headers['access-control-allow-origin'], origin);
    // An error must be readable to the page, too.
    const bad = await request(node.url + path('http:cors'), options, 'x');
    assert.equal(bad.status, 400);
    assert.equal(bad.headers['access-control-allow-origin'], origin);
  }
});

test('a page from elsewhere may not', async (t) => {
  const socket = await Socket.open(t, node, { channels: ['http:foreign'] });
  for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example:8000']) {
    const preflight = { origin, 'access-control-request-method': 'POST' };
    for (const [method, url, headers] of [
      ['OPTIONS', path('http:foreign'), preflight],
      ['POST', path('http:foreign'), { origin, 'content-type': 'text/plain' }],
      ['GET', '/v1/sse?channel=http:foreign', { origin }],
    ]) {
      const answer = await request(node.url + url, { method, headers }, method === 'POST' ? 'x' : undefined);
      assert.equal(answer.status, 403, `${method} ${url} ${origin}`);
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
      assert.equal(JSON.parse(answer.text).code, 'forbidden');
    }
    const handshake = await refused(`${node.ws}/v1/ws`, [], { origin });
    assert.equal(handshake.status, 403);
  }
  // Nothing of it was published.
  await post(node, 'http:foreign', { payload: 'first' });
  assert.equal((await socket.message()).payload, 'first');
});

test('a foreign name for this machine is refused (DNS rebinding)', async () => {
  const { port } = new URL(node.url);
  for (const host of [`evil.example:${port}`, 'evil.example', `127.0.0.1.evil.example:${port}`]) {
    // The page's origin would be the same as the host.
    for (const headers of [{ host }, { host, origin: `http://${host}` }]) {
      const answer = await request(`${node.url}/v1/channels`, { headers });
      assert.deepEqual([answer.status, JSON.parse(answer.text).code], [403, 'forbidden'], host);
      const handshake = await refused(`${node.ws}/v1/ws`, [], { headers });
      assert.equal(handshake.status, 403);
    }
  }
  for (const host of [`localhost:${port}`, `LOCALHOST:${port}`, '127.0.0.1', '[::1]:1']) {
    const answer = await request(`${node.url}/v1/channels`, { headers: { host } });
    assert.equal(answer.status, 200, host);
  }
});

test('an origin that the configuration names may call', async (t) => {
  const env = { TIDEWIRE_AUTH__ALLOWED_ORIGINS: 'https://app.example' };
  const listed = await startNode(t, { env });
  const allowed = await request(`${listed.url}/v1/channels`, { headers: { origin: 'https://app.example' } });
  assert.equal(allowed.status, 200);
  assert.equal(allowed.headers['access-control-allow-origin'], 'https://app.example');
  const options = { options: { origin: 'https://app.example' } };
  assert.equal((await Socket.open(t, listed, options)).welcome.type, 'welcome');
  const other = await request(`${listed.url}/v1/channels`, { headers: { origin: 'http://app.example' } });
  assert.equal(other.status, 403);
});
