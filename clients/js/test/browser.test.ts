// The built client in a real Chromium: two tabs, a worker, a page that is put away, no network.

import { existsSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type Browser, type BrowserContext, type Page, chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { TRANSPORTS, publish, startNode, startProxy, startRedis, until } from './lib/world.js';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

let browser: Browser;
let site: string;

const FILES: Record<string, [string, string]> = {
  '/tidewire.js': ['text/javascript', readFileSync(new URL('../dist/tidewire.js', import.meta.url), 'utf8')],
  '/worker.js': ['text/javascript', `
    import { connect } from './tidewire.js';
    onmessage = ({ data }) => {
      const room = connect(data).channel('room:1');
      room.on('*', (payload) => postMessage(payload));
      room.on('subscribed', () => postMessage('subscribed'));
    };`],
  '/': ['text/html', `<!doctype html><title>a page</title><link rel="icon" href="data:,">
    <script type="module">
      import { connect } from './tidewire.js';
      window.heard = [];
      window.gaps = [];
      window.states = [];
      window.begin = (url, options = {}) => {
        window.tw = connect(url, { backoff: { base: 50, cap: 500 }, ...options });
        tw.on('state', (state) => states.push(state));
        window.room = tw.channel('room:1');
        room.on('*', (payload) => heard.push(payload));
        room.on('gap', (gap) => gaps.push(gap));
        return new Promise((resolve) => room.on('subscribed', resolve));
      };
    </script>`],
};

beforeAll(async () => {
  const server = createServer(({ url }, response) => {
    const [path, policy] = url!.split('?');
    const [type, text] = FILES[path!] ?? ['text/plain', ''];
    if (policy) response.setHeader('content-security-policy', `connect-src ${policy}`);
    response.setHeader('content-type', type);
    response.end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  site = `http://127.0.0.1:${(server.address() as any).port}/`;
  const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
  if (!executablePath) throw new Error(`no Chromium at ${PLACES.join(', ')}; set CHROMIUM`);
  browser = await chromium.launch({ executablePath, args: FLAGS });
  return async () => {
    server.closeAllConnections();
    server.close();
  };
});
afterAll(() => browser?.close());

async function tabs(count: number): Promise<[BrowserContext, ...Page[]]> {
  const context = await browser.newContext();
  onTestFinished(() => context.close());
  context.setDefaultTimeout(20_000);
  const pages = [];
  for (let n = 0; n < count; n += 1) {
    const page = await context.newPage();
    page.on('pageerror', (error) => { throw error; });
    await page.goto(site);
    await page.waitForFunction('window.begin');
    pages.push(page);
  }
  return [context, ...pages];
}

const run = (page: Page, code: string): Promise<any> => page.evaluate(code);
const heard = (page: Page, count: number) => page.waitForFunction(`heard.length >= ${count}`);

test.each(TRANSPORTS)('two tabs over %s: a node is killed between them', async (transport) => {
  const redis = await startRedis();
  const [one, two] = [await startNode({ redis }), await startNode({ redis })];
  const proxy = await startProxy(one);
  const [, a, b] = await tabs(2) as [BrowserContext, Page, Page];
  await run(a, `begin(${JSON.stringify(proxy.url)}, { transports: ['${transport}'] })`);
  await run(b, `begin(${JSON.stringify(two.url)})`);
  await run(a, `room.publish('n', 1)`);
  await run(b, `room.publish('n', 2)`);
  for (const tab of [a, b]) await heard(tab, 2);

  await one.kill();
  const late = run(a, `room.publish('n', 3, { timeout: 20000 })`);
  await run(b, `room.publish('n', 4)`);
  proxy.lead(two);
  expect((await late).messageId).toBeTruthy();
  for (const tab of [a, b]) {
    await heard(tab, 4);
    const got: number[] = await run(tab, 'heard');
    expect(got.slice(0, 2)).toEqual([1, 2]);
    expect(got.slice(2).sort()).toEqual([3, 4]);
    expect(await run(tab, 'gaps')).toEqual([]);
  }
  expect(await run(a, 'tw.state.transport')).toBe(transport);
});

test('no network, and back: what was missed arrives at once', async () => {
  const node = await startNode();
  const [context, tab] = await tabs(1) as [BrowserContext, Page];
  await run(tab, `begin(${JSON.stringify(node.url)}, { heartbeat: 500, heartbeatTimeout: 500, backoff: { base: 60000, cap: 60000 } })`);
  await publish(node, 'room:1', { payload: 1 });
  await heard(tab, 1);
  await context.setOffline(true);
  await tab.waitForFunction(`tw.state.status === 'waiting'`);
  await publish(node, 'room:1', { payload: 2 });
  await context.setOffline(false);
  // Not after the back-off's minute.
  await heard(tab, 2);
  expect(await run(tab, 'heard')).toEqual([1, 2]);
  expect(await run(tab, `states.some(({ reason }) => reason?.code === 'online')`)).toBe(true);
});

/**
 * A page that is driven by the devtools' protocol alone: one of Playwright's own counts as looked at, and cannot be
 * frozen.
 */
async function bareTab() {
  const root = await browser.newBrowserCDPSession();
  const { targetId } = await root.send('Target.createTarget', { url: site });
  const { sessionId } = await root.send('Target.attachToTarget', { targetId, flatten: false });
  onTestFinished(async () => void (await root.send('Target.closeTarget', { targetId })));
  const answers = new Map<number, (answer: any) => void>();
  root.on('Target.receivedMessageFromTarget', ({ message }) => {
    const { id, result } = JSON.parse(message);
    answers.get(id)?.(result);
  });
  let ids = 0;
  const send = (method: string, params: object) => new Promise<any>((resolve, reject) => {
    answers.set(ids += 1, resolve);
    root.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id: ids, method, params }) }).catch(reject);
  });
  const run = async (expression: string) =>
    (await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })).result.value;
  await until('the page', () => run('!!window.begin'));
  return { run, set: (state: 'frozen' | 'active') => send('Page.setWebLifecycleState', { state }) };
}

test.each(TRANSPORTS)('a page that is frozen over %s, for real: it catches up when it is not, once and in order', async (transport) => {
  const node = await startNode();
  const tab = await bareTab();
  await tab.run(`begin(${JSON.stringify(node.url)}, { transports: ['${transport}'] }).then(() => {})`);
  const heard = (count: number) => until(`${count} messages`, async () => await tab.run('heard.length') >= count);
  await publish(node, 'room:1', { payload: 0 });
  await heard(1);
  // What runs in the page leaves a mark every now and then.
  await tab.run(`{
    let last = performance.now();
    window.pause = 0;
    setInterval(() => {
      pause = Math.max(pause, performance.now() - last);
      last = performance.now();
    }, 20);
  }`);
  await tab.set('frozen');
  const began = performance.now();
  const channels = async () => (await (await fetch(`${node.url}/v1/channels`)).json()).channels;
  // A request that a page aborts while it is being frozen Chromium ends only when it is not any more.
  if (transport === 'ws') await expect.poll(channels, { timeout: 15_000 }).toEqual([]);
  for (let n = 1; n <= 100; n += 1) await publish(node, 'room:1', { payload: n });
  const asleep = performance.now() - began;
  await tab.set('active');
  await heard(101);
  await publish(node, 'room:1', { payload: 101 });
  await heard(102);
  expect(await tab.run('heard')).toEqual(Array.from({ length: 102 }, (_, n) => n));
  expect(await tab.run('gaps')).toEqual([]);
  expect(await tab.run(`states.some(({ status, reason }) => status === 'waiting' && reason.code === 'frozen')`)).toBe(true);
  // It was frozen for real: nothing ran in it.
  expect(await tab.run('pause')).toBeGreaterThanOrEqual(asleep);
});

test('a page that is looked at again asks at once whether its connection lives', async () => {
  const node = await startNode();
  const proxy = await startProxy(node);
  const [, tab] = await tabs(1) as [BrowserContext, Page];
  await run(tab, `begin(${JSON.stringify(proxy.url)}, { heartbeat: 600000, heartbeatTimeout: 500 })`);
  proxy.stall();
  await publish(node, 'room:1', { payload: 1 });
  proxy.heal();
  // The heartbeat would find it after ten minutes.
  await run(tab, `document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))`);
  await heard(tab, 1);
  expect(await run(tab, `states.some(({ status, reason }) => status === 'waiting' && reason.code === 'timeout')`)).toBe(true);
  expect(await run(tab, 'gaps')).toEqual([]);
});

test('in a worker', async () => {
  const node = await startNode();
  const [, tab] = await tabs(1) as [BrowserContext, Page];
  await run(tab, `{
    const worker = new Worker('worker.js', { type: 'module' });
    worker.onmessage = ({ data }) => heard.push(data);
    worker.postMessage(${JSON.stringify(node.url)});
  }`);
  await heard(tab, 1);
  await publish(node, 'room:1', { payload: 'hello' });
  await heard(tab, 2);
  expect(await run(tab, 'heard')).toEqual(['subscribed', 'hello']);
});

test('a page whose policy allows no WebSocket falls back', async () => {
  const node = await startNode();
  const context = await browser.newContext();
  onTestFinished(() => context.close());
  const tab = await context.newPage();
  await tab.goto(`${site}?${node.url}/v1/sse`);
  await tab.waitForFunction('window.begin');
  await run(tab, `begin(${JSON.stringify(node.url)})`);
  expect(await run(tab, 'tw.state.transport')).toBe('sse');
  expect(await run(tab, `tw.state.reason.code`)).toBe('network');
});
