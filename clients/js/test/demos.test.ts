// The demos in two windows of a real Chromium, through nginx and three nodes, one of which dies under way.

import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Browser, type Page, chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { startSite } from './lib/site.js';
import { startNode, until } from './lib/world.js';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const artifacts = fileURLToPath(new URL('../../../artifacts/', import.meta.url));

let browser: Browser;
beforeAll(async () => {
  const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
  if (!executablePath) throw new Error(`no Chromium at ${PLACES.join(', ')}; set CHROMIUM`);
  browser = await chromium.launch({ executablePath, args: FLAGS });
});
afterAll(() => browser?.close());

type Tab = Page & { faults: string[] };

/** Windows without anything in common; what goes wrong in them is kept. */
async function windows(url: string, ...looks: ('light' | 'dark')[]): Promise<Tab[]> {
  return Promise.all(looks.map(async (colorScheme, n) => {
    const context = await browser.newContext({ colorScheme, viewport: { width: 900, height: 700 } });
    onTestFinished(() => context.close());
    // As if from different addresses: nginx may send each to another node.
    await context.addCookies([{ name: 'tidewire_sticky', value: `window-${n}`, url }]);
    context.setDefaultTimeout(20_000);
    const page = Object.assign(await context.newPage(), { faults: [] as string[] });
    page.on('pageerror', (error) => page.faults.push(String(error)));
    await page.goto(url);
    return page;
  }));
}

const connected = (page: Page) => page.locator('.state.open').waitFor();
const text = (page: Page, selector: string) => page.locator(selector).innerText();
const number = async (page: Page, selector: string) => Number(await text(page, selector));

async function picture(page: Page, name: string): Promise<void> {
  mkdirSync(artifacts, { recursive: true });
  await page.screenshot({ path: `${artifacts}demo-${name}.png`, fullPage: true });
}

/** Kills the node that has most sessions, and starts it again. */
async function crash(nodes: any[]): Promise<void> {
  const sessions = await Promise.all(nodes.map(async (node) => {
    const metrics = await (await fetch(`${node.admin}/metrics`)).text();
    return [...metrics.matchAll(/^tidewire_connections\{.*\} (\d+)/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  }));
  await nodes[sessions.indexOf(Math.max(...sessions))].restart();
}

test('the index leads to every demo', async () => {
  const { url } = await startSite();
  const [page] = await windows(`${url}/demo/`, 'light');
  await picture(page!, 'index');
  const links = await page!.locator('a').evaluateAll((all) => all.map((one) => (one as HTMLAnchorElement).href));
  expect(links.length).toBeGreaterThan(10);
  for (const link of links) expect((await fetch(link)).status, link).toBe(200);
  expect(page!.faults).toEqual([]);
});

test('chat: acknowledged, typing, a line that is cut, a node that dies', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/chat.html`, 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) await connected(page);
  const say = async (page: Page, words: string) => {
    await page.fill('#text', words);
    await page.press('#text', 'Enter');
  };
  const sees = (page: Page, words: string, tag: string) =>
    page.locator('#messages li', { hasText: words }).locator('.tag', { hasText: tag }).waitFor();
  await say(a, 'hello');
  for (const page of [a, b]) await sees(page, 'hello', 'stored');
  await b.locator('#text').pressSequentially('wr');
  await a.locator('#typing', { hasText: 'is typing' }).waitFor();

  await a.click('#line');
  await a.locator('.state:not(.open)').waitFor();
  await say(b, 'while you were away');
  await say(b, 'and another');
  await sees(b, 'and another', 'stored');
  await say(a, 'written offline');
  await sees(a, 'written offline', 'sending');
  await picture(a, 'chat-cut');
  await a.click('#line');
  await sees(a, 'while you were away', 'caught up');
  await a.locator('#caught', { hasText: '2 caught up' }).waitFor();
  for (const page of [a, b]) await sees(page, 'written offline', 'stored');

  await crash(nodes);
  await say(a, 'after the crash');
  for (const page of [a, b]) {
    await sees(page, 'after the crash', 'stored');
    expect(await page.locator('#messages li').count()).toBe(5);
    expect(page.faults).toEqual([]);
  }
  await picture(a, 'chat');
  await picture(b, 'chat-dark');
});

test('notifications: two devices, one of them away', async () => {
  const { url, nodes } = await startSite();
  const [phone, desk] = await windows(`${url}/demo/notifications.html`, 'light', 'light') as [Tab, Tab];
  for (const page of [phone, desk]) await connected(page);
  await phone.click('#line');
  await phone.locator('.state:not(.open)').waitFor();
  for (const n of [1, 2]) {
    await desk.fill('#text', `parcel ${n}`);
    await desk.click('text="Notify"');
    await desk.locator('#list li', { hasText: `parcel ${n}` }).waitFor();
  }
  await crash(nodes);
  await phone.click('#line');
  for (const page of [phone, desk]) {
    await page.locator('#list li', { hasText: 'parcel 2' }).waitFor();
    expect(await number(page, '#unread')).toBe(2);
  }
  await picture(phone, 'notifications');
});

test('prices: no tick is missing, also when the node dies', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/prices.html`, 'light', 'dark') as [Tab, Tab];
  const ticks = (page: Page, count: number) => until('ticks', async () => await number(page, '#count') > count, 30_000);
  for (const page of [a, b]) await ticks(page, 20);
  await crash(nodes);
  const before = await number(a, '#count');
  for (const page of [a, b]) {
    await ticks(page, before + 30);
    expect(await number(page, '#missing')).toBe(0);
  }
  expect((await a.locator('polyline').getAttribute('points'))!.split(' ').length).toBeGreaterThan(40);
  await picture(b, 'prices');
});

test('job: two windows, one opened late, and a node that dies', async () => {
  const { url, nodes } = await startSite();
  const [a] = await windows(`${url}/demo/job.html`, 'light') as [Tab];
  await connected(a);
  await a.click('#start');
  await until('some progress', async () => parseInt(await text(a, '#percent'), 10) > 10);
  const [b] = await windows((await a.locator('#share').getAttribute('href'))!, 'dark') as [Tab];
  await until('it is there at once', async () => parseInt(await text(b, '#percent'), 10) > 10);
  await crash(nodes);
  for (const page of [a, b]) {
    await page.locator('#percent', { hasText: '100 %' }).waitFor();
    expect(await text(page, '#step')).toBe('done');
  }
  await picture(a, 'job');
});

test('cursors and a shared text: both windows come to the same', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/cursors.html`, 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) await connected(page);
  const box = (await a.locator('#text').boundingBox())!;
  await a.mouse.move(box.x + 100, box.y + 60);
  await a.mouse.move(box.x + 180, box.y + 90, { steps: 5 });
  await b.locator('.pointer').waitFor();
  await picture(b, 'cursors');
  await a.locator('#text').pressSequentially('The tide ');
  await b.locator('#text').press('End');
  // At the same time, and a node dies meanwhile.
  await Promise.all([
    a.locator('#text').pressSequentially('comes in', { delay: 40 }),
    b.locator('#text').pressSequentially('and goes out', { delay: 40 }),
    crash(nodes),
  ]);
  const value = (page: Page) => page.locator('#text').inputValue();
  await until('the same text', async () => await value(a) === await value(b) && (await value(a)).length === 29);
  const [late] = await windows(`${url}/demo/cursors.html`, 'light') as [Tab];
  await until('who comes late has it', async () => await value(late) === await value(a));
  for (const page of [a, b]) expect(page.faults).toEqual([]);
});

test('game: two boats see each other, one catches the buoy, a node dies', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/game.html`, 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await connected(page);
    await page.locator('#players', { hasText: '2 boats' }).waitFor();
  }
  await until('positions of the other', async () => await number(a, '#rate') > 0);
  const caught = async (page: Page) => parseInt(await text(page, '#score'), 10);
  /** Steers a boat to the buoy, until it has caught so many. */
  const sail = (page: Page, count: number) => until('a catch', async () => {
    const { x, y, width, height } = (await page.locator('#sea').boundingBox())!;
    const [at, down] = (await page.locator('#sea').getAttribute('data-buoy'))!.split(' ').map(Number) as [number, number];
    await page.mouse.move(x + (at / 960) * width, y + (down / 540) * height);
    await page.mouse.move(x + (at / 960) * width + 1, y + (down / 540) * height);
    return await caught(page) >= count;
  }, 60_000);
  await sail(a, 1);
  expect(await caught(b)).toBe(0);
  await crash(nodes);
  for (const page of [a, b]) await page.locator('#players', { hasText: '2 boats' }).waitFor();
  await picture(b, 'game');
  await sail(a, 2);
  for (const page of [a, b]) expect(page.faults).toEqual([]);
}, 150_000);

test('dashboard: every second in both windows, also without a node', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/dashboard.html`, 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'up' }).nth(2).waitFor();
  await expect.poll(() => number(a, '#connections'), { timeout: 10_000 }).toBeGreaterThan(0);
  await nodes[2].kill();
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'down' }).waitFor();
  await nodes[2].restart();
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'up' }).nth(2).waitFor();
  await picture(a, 'dashboard');
  for (const page of [a, b]) expect(page.faults).toEqual([]);
});

test('one node with the embedded broker serves what needs no backend', async () => {
  const { url } = await startNode();
  const [index, a, b] = await windows(`${url}/demo/`, 'light', 'light', 'dark') as [Tab, Tab, Tab];
  await index.locator('#alone', { hasText: 'backend is not here' }).waitFor();
  for (const page of [a, b]) {
    await page.click('h2 a[href$="chat.html"]');
    await connected(page);
  }
  await a.fill('#text', 'alone');
  await a.press('#text', 'Enter');
  await b.locator('#messages li', { hasText: 'alone' }).waitFor();
  await a.goto(`${url}/demo/prices.html`);
  await a.click('#feed');
  await until('ticks', async () => await number(a, '#count') > 5);
  await b.goto(`${url}/demo/break.html`);
  await connected(b);
  await b.locator('#fault', { hasText: 'backend is not there' }).waitFor();
  for (const page of [index, a, b]) expect(page.faults).toEqual([]);
});

test('break it: drained and crashed nodes, nothing missing, nothing twice', async () => {
  const { url, nodes } = await startSite();
  const [a, b] = await windows(`${url}/demo/break.html`, 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await connected(page);
    await page.click('#run');
  }
  await a.locator('#nodes li', { hasText: 'ready' }).nth(2).waitFor();
  const received = (page: Page, count: number) => until('numbers', async () => await number(page, '#received') > count, 30_000);
  await received(a, 20);
  // Each node in turn, by the button; it ends, and comes back.
  for (const [n, node] of nodes.entries()) {
    await a.locator('#nodes li').nth(n).getByText('Drain').click();
    expect((await node.ended(20_000)).code).toBe(0);
    await node.restart();
    await a.locator('#nodes li').nth(n).locator('.tag', { hasText: 'ready' }).waitFor();
  }
  await picture(a, 'break');
  // Another two at once, without a word to anybody.
  const crashed = nodes.slice(1);
  for (const n of [1, 2]) await a.locator('#nodes li').nth(n).getByText('Crash').click();
  for (const node of crashed) {
    expect((await node.ended(20_000)).signal).toBe('SIGABRT');
    await node.restart();
  }
  for (const n of [1, 2]) await a.locator('#nodes li').nth(n).locator('.tag', { hasText: 'ready' }).waitFor();
  for (const page of [a, b]) {
    await received(page, await number(page, '#sent') + 20);
    await page.click('#run');
    await until('all are in', async () => await number(page, '#received') === await number(page, '#sent'), 30_000);
    expect([await number(page, '#missing'), await number(page, '#twice'), await number(page, '#gaps')]).toEqual([0, 0, 0]);
  }
  await picture(b, 'break-dark');
}, 120_000);
