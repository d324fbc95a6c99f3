// The demos while a node dies under way: the one that a window is connected to, through nginx, is killed and started again.

import { expect, test } from 'vitest';
import { say, sail, sees, write } from './lib/demos.js';
import { type Site, connectionsOf, startSite } from './lib/site.js';
import { type Tab, connected, number, picture, text, useBrowser, well, windows } from './lib/windows.js';
import { until } from './lib/world.js';

useBrowser();

/** Kills the node of the first window, and starts it again. */
async function crash({ nodes }: Site): Promise<void> {
  expect(await connectionsOf(nodes[0])).toBeGreaterThan(0);
  await nodes[0].restart();
}

async function two(page: string): Promise<[Site, Tab, Tab]> {
  const site = await startSite();
  const [a, b] = await windows(site, `/demo/${page}`, 'light', 'dark') as [Tab, Tab];
  return [site, a, b];
}

test('chat: what was said before, meanwhile and after is there once', async () => {
  const [site, a, b] = await two('chat.html');
  for (const page of [a, b]) await connected(page);
  await say(a, 'before');
  await sees(b, 'before', 'stored');
  await Promise.all([crash(site), say(a, 'meanwhile, from a'), say(b, 'meanwhile, from b')]);
  await say(a, 'after');
  for (const page of [a, b]) {
    for (const words of ['meanwhile, from a', 'meanwhile, from b', 'after']) await page.locator('#messages li', { hasText: words }).waitFor();
    await until('all are stored', async () => await page.locator('#messages li .tag.warn').count() === 0);
    expect(await page.locator('#messages li').count()).toBe(4);
  }
  await picture(a, 'chat-after-crash');
  await well(a, b);
});

test('notifications: one that comes while the node is away arrives', async () => {
  const [site, phone, desk] = await two('notifications.html');
  for (const page of [phone, desk]) await connected(page);
  await site.nodes[0].kill();
  await desk.fill('#text', 'while it is down');
  await desk.click('text="Notify"');
  for (const page of [phone, desk]) {
    await page.locator('#list li', { hasText: 'while it is down' }).waitFor();
    expect(await number(page, '#unread')).toBe(1);
  }
  await well(phone, desk);
});

test('prices: no tick is missing', async () => {
  const [site, a, b] = await two('prices.html');
  const ticks = (page: Tab, count: number) => until('ticks', async () => await number(page, '#count') > count, 30_000);
  for (const page of [a, b]) await ticks(page, 20);
  await crash(site);
  const before = await number(a, '#count');
  for (const page of [a, b]) {
    await ticks(page, before + 30);
    expect(await number(page, '#missing')).toBe(0);
  }
  await well(a, b);
});

test('job: it is seen to its end', async () => {
  const site = await startSite();
  const [a] = await windows(site, '/demo/job.html', 'light') as [Tab];
  await connected(a);
  await a.click('#start');
  await until('some progress', async () => parseInt(await text(a, '#percent'), 10) > 10);
  const [, b] = await windows(site, (await a.locator('#share').getAttribute('href'))!, 'light', 'dark') as [Tab, Tab];
  await connected(b);
  await crash(site);
  for (const page of [a, b]) {
    await page.locator('#percent', { hasText: '100 %' }).waitFor();
    expect(await text(page, '#step')).toBe('done');
  }
  await well(a, b);
});

test('cursors and a shared text: both windows come to the same', async () => {
  const [site, a, b] = await two('cursors.html');
  for (const page of [a, b]) await connected(page);
  await write(a, b, () => crash(site));
  await well(a, b);
});

test('game: the boats see each other again, and a catch counts', async () => {
  const [site, a, b] = await two('game.html');
  for (const page of [a, b]) await page.locator('#players', { hasText: '2 boats' }).waitFor();
  await sail(a, 1);
  await crash(site);
  for (const page of [a, b]) {
    await connected(page);
    await until('positions of the other', async () => await number(page, '#rate') > 30);
    await page.locator('#players', { hasText: '2 boats' }).waitFor();
  }
  await sail(a, 2);
  expect(await text(b, '#score')).toBe('0 caught');
  await well(a, b);
}, 150_000);

test('dashboard: a node that is down, and up again', async () => {
  const [site, a, b] = await two('dashboard.html');
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'up' }).nth(2).waitFor();
  expect(await connectionsOf(site.nodes[0])).toBeGreaterThan(0);
  await site.nodes[0].kill();
  // On a busy machine the others may not answer in time either, for a moment.
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'Node 1' }).filter({ hasText: 'down' }).waitFor();
  await picture(a, 'dashboard-node-down');
  await site.nodes[0].restart();
  for (const page of [a, b]) await page.locator('#nodes li', { hasText: 'up' }).nth(2).waitFor();
  await well(a, b);
});

test('break it: drained and crashed nodes, nothing missing, nothing twice', async () => {
  const [{ nodes }, a, b] = await two('break.html');
  for (const page of [a, b]) {
    await connected(page);
    await page.click('#run');
  }
  await a.locator('#nodes li', { hasText: 'ready' }).nth(2).waitFor();
  const received = (page: Tab, count: number) => until('numbers', async () => await number(page, '#received') > count, 30_000);
  await received(a, 20);
  // Each node in turn, by the button; it ends, and comes back.
  for (const [n, node] of nodes.entries()) {
    await a.locator('#nodes li').nth(n).getByText('Drain').click();
    expect((await node.ended(20_000)).code).toBe(0);
    if (n === 0) await picture(a, 'break-drained');
    await node.restart();
    await a.locator('#nodes li').nth(n).locator('.tag', { hasText: 'ready' }).waitFor();
  }
  // Another two at once, without a word to anybody.
  const crashed = nodes.slice(1);
  for (const n of [1, 2]) await a.locator('#nodes li').nth(n).getByText('Crash').click();
  for (const node of crashed) {
    expect((await node.ended(20_000)).signal).toBe('SIGABRT');
    await node.restart();
  }
  for (const n of [1, 2]) await a.locator('#nodes li').nth(n).locator('.tag', { hasText: 'ready' }).waitFor();
  await picture(a, 'break');
  for (const page of [a, b]) {
    await received(page, await number(page, '#sent') + 20);
    await page.click('#run');
    await until('all are in', async () => await number(page, '#received') === await number(page, '#sent'), 30_000);
    expect([await number(page, '#missing'), await number(page, '#twice'), await number(page, '#gaps')]).toEqual([0, 0, 0]);
  }
  await picture(b, 'break-dark');
  await well(a, b);
}, 120_000);
