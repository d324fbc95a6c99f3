// A browser's own EventSource behind nginx, with no library: its node is killed, and it goes on
// where it was on the other one.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { publish } from './clients.mjs';
import { connections, startNodes, startRedis } from './cluster.mjs';
import { atEnd, check, ensure, same, stop } from './harness.mjs';
import { startNginx } from './nginx-process.mjs';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const packages = createRequire(new URL('../../clients/tests/package.json', import.meta.url));

async function startBrowser(executablePath) {
  const { chromium } = packages('playwright-core');
  // The tests may run as root, which Chromium's sandbox refuses; only this page is shown.
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] });
  atEnd(() => browser.close());
  return browser;
}

// Runs in the page.
function listen(path) {
  window.seen = { welcomes: 0, gaps: [], messages: [], ids: [] };
  window.source = new EventSource(path);
  window.source.addEventListener('tidewire:welcome', () => { window.seen.welcomes += 1; });
  window.source.addEventListener('tidewire:gap', ({ data }) => window.seen.gaps.push(data));
  window.source.addEventListener('message', ({ data, lastEventId }) => {
    window.seen.messages.push(JSON.parse(data).n);
    window.seen.ids.push(lastEventId);
  });
}

const has = (count) => window.seen.messages.length >= count;

export async function browser() {
  const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
  if (!executablePath) {
    console.log('skipped  a browser whose node is killed: there is no Chromium here');
    return;
  }
  await check("a browser's EventSource whose node is killed gets on the other node what it missed", async () => {
    const all = await startNodes(await startRedis(), 2);
    const nginx = await startNginx(all.map((node) => node.port));
    const tab = await (await startBrowser(executablePath)).newPage();
    const asked = [];
    tab.on('request', (sent) => sent.url().includes('/v1/sse') && asked.push(sent.allHeaders()));
    // A page of the same origin that does nothing itself: nginx's own 404.
    await tab.goto(`${nginx.plain}/metrics`);
    await tab.evaluate(listen, '/v1/sse?channel=news&channel=room:1');
    await tab.waitForFunction(() => window.seen.welcomes === 1);

    const held = await Promise.all(all.map(connections));
    same([...held].sort(), [0, 1], 'connections of the nodes');
    const [doomed, other] = held[0] === 1 ? all : [...all].reverse();
    // Two channels, so that one id must hold two places.
    const say = (n) => publish(other.direct, n % 2 ? 'news' : 'room:1', { payload: { n } });
    for (let n = 0; n < 5; n += 1) await say(n);
    await tab.waitForFunction(has, 5);

    await stop(doomed.child, 'SIGKILL');
    for (let n = 5; n < 25; n += 1) await say(n);
    await tab.waitForFunction(has, 25);
    await say(25);
    await tab.waitForFunction(has, 26);

    const seen = await tab.evaluate(() => ({ ...window.seen, state: window.source.readyState }));
    // Each channel in order; between channels there is none.
    for (const odd of [0, 1]) {
      const wanted = Array.from({ length: 26 }, (_, n) => n).filter((n) => n % 2 === odd);
      same(seen.messages.filter((n) => n % 2 === odd), wanted, 'messages of a channel');
    }
    same([seen.gaps, seen.welcomes, seen.state], [[], 2, 1], 'gaps, welcomes, state');
    const headers = await Promise.all(asked);
    ensure(headers.length >= 2, 'it came back');
    same(headers.at(-1)['last-event-id'], seen.ids[4], 'the id with which it came back');
    same(await connections(other), 1, 'connections of the other node');
  }, 60);
}
