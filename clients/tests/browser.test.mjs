// Chromium: the page that comes with the node, and pages of others that use it without a library.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { openTab, openWindow, screenshot, sharedBrowser } from './lib/browser.mjs';
import { BINARY, sharedNode, startNode } from './lib/node.mjs';
import { post, publish } from './lib/publish.mjs';

const node = sharedNode();
const shared = sharedBrowser();

const PANES = ['#websocket', '#sse'];

/** Waits until both panes are connected. */
async function connected(tab) {
  for (const pane of PANES) await tab.locator(`${pane} .state.open`).waitFor();
}

/** Waits until both panes show a message with this event and payload. */
async function shown(tab, event, payload) {
  for (const pane of PANES) {
    await tab.locator(`${pane} li.message`, { hasText: `${event}${JSON.stringify(payload)}` }).waitFor();
  }
}

async function publishFrom(tab, over, payload) {
  await tab.selectOption('#over', over);
  await tab.fill('#payload', JSON.stringify(payload));
  await tab.click('text="Publish"');
}

/** An empty page at http://NAME:PORT, another origin than any node's; ends with the test. */
async function foreignPage(t, name) {
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>another page</title><link rel="icon" href="data:,">');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://${name}:${server.address().port}/`;
}

// What one would type into a browser's console: these run in the page.

const byWebSocket = ({ url, channel }) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/ws?channel=${channel}`);
  socket.onerror = () => reject(new Error('the WebSocket failed'));
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === 'welcome') {
      socket.send(JSON.stringify({ type: 'publish', channel, event: 'greeting', payload: { hi: 1 } }));
    }
    if (frame.type === 'message') {
      socket.close();
      resolve(frame.payload);
    }
  };
});

const byEventSource = ({ url, channel }) => new Promise((resolve, reject) => {
  const source = new EventSource(`${url}/v1/sse?channel=${channel}`);
  source.onerror = () => reject(new Error(`the EventSource failed (${source.readyState})`));
  source.addEventListener('tidewire:welcome', async () => {
    const answer = await fetch(`${url}/v1/channels/${channel}/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ event: 'greeting', payload: { hi: 2 } }),
    });
    if (!answer.ok) reject(new Error(await answer.text()));
  });
  source.addEventListener('greeting', ({ data }) => {
    source.close();
    resolve(JSON.parse(data));
  });
});

/** Runs in the page; gives its error as text. */
async function failure(tab, run, argument) {
  return tab.evaluate(run, argument).then(() => 'it did not fail', (error) => error.message);
}

test('the page that comes with the node logs in with a token', async (t) => {
  const env = {
    TIDEWIRE_AUTH__JWT__SECRET: '0123456789abcdef0123456789abcdef',
    TIDEWIRE_AUTH__API_KEYS: 'shop=the-key-of-the-shop',
  };
  const closed = await startNode(t, { env });
  const { stdout } = await promisify(execFile)(
    BINARY, ['token', '--sub', 'alice', '--subscribe', '*', '--publish', '*'], { env });
  const token = stdout.trim();
  const tab = await openTab(await openWindow(t, shared), closed.url);
  await tab.locator('#sse li.fault', { hasText: 'unauthorized' }).waitFor();
  await tab.fill('#token', token);
  await tab.press('#token', 'Tab');
  await connected(tab);
  for (const [over, payload] of [['http', { n: 1 }], ['websocket', { n: 2 }]]) {
    await publishFrom(tab, over, payload);
    await shown(tab, 'headline', payload);
  }
  // Who looks at the page, or copies from it, does not get the token.
  assert.ok(!(await tab.locator('body').innerText()).includes(token));
  assert.match(await tab.locator('#shell').textContent(), /authorization: Bearer TOKEN/);
  // A key of a backend will do, too.
  await tab.fill('#token', 'the-key-of-the-shop');
  await tab.press('#token', 'Tab');
  await connected(tab);
  await publishFrom(tab, 'http', { n: 3 });
  await shown(tab, 'headline', { n: 3 });
});

test('two tabs: what one publishes, all panes of both show', async (t) => {
  const context = await openWindow(t, shared);
  const tabs = await Promise.all([1, 2].map(() => openTab(context, `${node.url}/`)));
  for (const tab of tabs) await connected(tab);

  await publishFrom(tabs[0], 'http', { over: 'HTTP' });
  for (const tab of tabs) await shown(tab, 'headline', { over: 'HTTP' });
  await publishFrom(tabs[0], 'websocket', { over: 'WebSocket' });
  for (const tab of tabs) await shown(tab, 'headline', { over: 'WebSocket' });
  // And from a program.
  await publish(node, 'news', { event: 'headline', payload: { over: '<b>fetch</b> & "quotes"' } });
  for (const tab of tabs) await shown(tab, 'headline', { over: '<b>fetch</b> & "quotes"' });

  assert.match(await tabs[0].textContent('#answer'), /"messageId":"[0-9a-f-]{36}"/);
  await tabs[1].click('text="The same from a shell"');
  await screenshot(tabs[1], 'page');
  for (const tab of tabs) assert.deepEqual(tab.faults, []);
});

test('another channel, another event, the default event', async (t) => {
  const tab = await openTab(await openWindow(t, shared), `${node.url}/`);
  await connected(tab);
  await tab.fill('#channel', 'room:ü/42');
  await tab.press('#channel', 'Tab');
  await tab.fill('#event', 'joined');
  await tab.locator('#websocket li', { hasText: 'room:ü/42' }).waitFor();
  await connected(tab);
  await publishFrom(tab, 'http', [1, 'two']);
  await shown(tab, 'joined', [1, 'two']);
  await publish(node, 'room:ü/42', { payload: 'plain' });
  await shown(tab, 'message', 'plain');
  await publish(node, 'news', { payload: 'left behind' });
  await publish(node, 'room:ü/42', { payload: 'after' });
  await shown(tab, 'message', 'after');
  assert.equal(await tab.locator('li.message', { hasText: 'left behind' }).count(), 0);
});

test('the page says what is wrong', async (t) => {
  const tab = await openTab(await openWindow(t, shared), `${node.url}/`);
  await connected(tab);
  const answer = tab.locator('#answer.bad');

  await tab.fill('#payload', '{"half":');
  await tab.click('text="Publish"');
  await answer.filter({ hasText: 'The payload is not JSON' }).waitFor();

  await tab.fill('#event', 'tidewire:fake');
  for (const over of ['http', 'websocket']) {
    await publishFrom(tab, over, 1);
    await answer.filter({ hasText: 'tidewire:' }).waitFor();
  }
  // The refused one over the WebSocket is in its log, too.
  await tab.locator('#websocket li.fault', { hasText: 'bad_' }).waitFor();

  await tab.fill('#event', 'fine');
  await tab.fill('#channel', 'no spaces');
  await tab.press('#channel', 'Tab');
  for (const pane of PANES) {
    await tab.locator(`${pane} .state.closed`).waitFor();
    await tab.locator(`${pane} li.fault`, { hasText: 'bad_channel' }).waitFor();
  }
  await screenshot(tab, 'page-errors');

  await tab.fill('#channel', 'spaceless');
  await tab.press('#channel', 'Tab');
  await connected(tab);
});

test('the page comes back when its node does', async (t) => {
  const mortal = await startNode(t);
  const tab = await openTab(await openWindow(t, shared), `${mortal.url}/`);
  await connected(tab);
  await mortal.restart(async () => {
    for (const pane of PANES) await tab.locator(`${pane} .state:not(.open)`).waitFor();
    await publishFrom(tab, 'http', 'nobody there');
    await tab.locator('#answer.bad', { hasText: 'cannot be reached' }).waitFor();
    await publishFrom(tab, 'websocket', 'nobody there');
    await tab.locator('#answer.bad', { hasText: 'not open' }).waitFor();
  });
  await connected(tab);
  await publishFrom(tab, 'websocket', 'here again');
  await shown(tab, 'headline', 'here again');
});

test('an EventSource comes back by itself after the node was killed', async (t) => {
  const mortal = await startNode(t);
  const tab = await openTab(await openWindow(t, shared), await foreignPage(t, 'localhost'));
  await tab.evaluate((url) => {
    const source = new EventSource(`${url}/v1/sse?channel=back`);
    Object.assign(window, { welcomes: 0, errors: 0, heard: [] });
    source.addEventListener('tidewire:welcome', () => { window.welcomes += 1; });
    source.onerror = () => { window.errors += 1; };
    source.onmessage = ({ data }) => window.heard.push(JSON.parse(data));
  }, mortal.url);
  await tab.waitForFunction(() => window.welcomes === 1);
  await publish(mortal, 'back', { payload: 'before' });
  await tab.waitForFunction(() => window.heard.length === 1);
  // Away for more than one attempt.
  await mortal.restart(() => tab.waitForFunction(() => window.errors > 1));
  await tab.waitForFunction(() => window.welcomes === 2);
  await publish(mortal, 'back', { payload: 'after' });
  await tab.waitForFunction(() => window.heard.length === 2);
  assert.deepEqual(await tab.evaluate(() => window.heard), ['before', 'after']);
});

test('a page of the same origin needs no library', async (t) => {
  const tab = await openTab(await openWindow(t, shared), `${node.url}/`);
  const argument = { url: node.url, channel: 'console' };
  assert.deepEqual(await tab.evaluate(byWebSocket, argument), { hi: 1 });
  assert.deepEqual(await tab.evaluate(byEventSource, argument), { hi: 2 });
  assert.deepEqual(tab.faults, []);
});

test('a page from another port of this machine may connect and publish', async (t) => {
  const context = await openWindow(t, shared);
  for (const name of ['localhost', '127.0.0.1']) {
    const tab = await openTab(context, await foreignPage(t, name));
    const argument = { url: node.url, channel: 'from-development' };
    assert.deepEqual(await tab.evaluate(byWebSocket, argument), { hi: 1 });
    assert.deepEqual(await tab.evaluate(byEventSource, argument), { hi: 2 });
    assert.deepEqual(tab.faults, []);
  }
});

test('a page from elsewhere may not', async (t) => {
  const tab = await openTab(await openWindow(t, shared), await foreignPage(t, 'evil.example'));
  const argument = { url: node.url, channel: 'private' };
  assert.match(await failure(tab, byWebSocket, argument), /the WebSocket failed/);
  assert.match(await failure(tab, byEventSource, argument), /the EventSource failed \(2\)/);
  // A request that needs no preflight reaches the node, which refuses it.
  const listener = fetch(`${node.url}/v1/sse?channel=private`);
  const send = ({ url }) => fetch(`${url}/v1/channels/private/messages`, {
    method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body: 'forged',
  }).then(() => 'sent');
  await tab.evaluate(send, argument).catch(() => 'the browser refused it');
  const { body } = await listener;
  await post(node, 'private', { payload: 'genuine' });
  let text = '';
  for await (const part of body) {
    text += Buffer.from(part).toString();
    if (text.includes('genuine')) break;
  }
  assert.ok(!text.includes('forged'), text);
});

test('a foreign name that leads to this machine gets nothing (DNS rebinding)', async (t) => {
  const { port } = new URL(node.url);
  const context = await openWindow(t, shared);
  const tab = await context.newPage();
  const answer = await tab.goto(`http://rebound.example:${port}/v1/channels`);
  assert.equal(answer.status(), 403);
  assert.equal((await answer.json()).code, 'forbidden');
});
