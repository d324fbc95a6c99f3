// The demos do their job in two windows of a real Chromium, each connected to another one of three nodes behind nginx.

import { expect, test } from 'vitest';
import { startSite } from './lib/site.js';
import { connected, number, picture, text, useBrowser, well, windows } from './lib/windows.js';
import { startNode, until } from './lib/world.js';
import type { Tab } from './lib/windows.js';
import { TEXT, say, sail, sees, write, written } from './lib/demos.js';

useBrowser();

const PAGES = ['', 'chat.html', 'notifications.html', 'prices.html', 'job.html', 'cursors.html', 'game.html', 'dashboard.html', 'break.html'];

test('the index leads to every demo', async () => {
  const site = await startSite();
  const [page, dark] = await windows(site, '/demo/', 'light', 'dark') as [Tab, Tab];
  await picture(page, 'index');
  await picture(dark, 'index-dark');
  const links = await page.locator('a').evaluateAll((all) => all.map((one) => (one as HTMLAnchorElement).href));
  expect(links.length).toBeGreaterThan(10);
  for (const link of links) expect((await fetch(link)).status, link).toBe(200);
  for (const name of PAGES) expect(links.some((link) => new URL(link).pathname === `/demo/${name}`) || name === '', name).toBe(true);
  await well(page, dark);
});

test('every page fits a telephone', async () => {
  const site = await startSite();
  for (const name of PAGES) {
    const [page] = await windows(site, `/demo/${name}`, 'narrow') as [Tab];
    if (name) await connected(page);
    if (name === 'dashboard.html') await page.locator('#nodes li').nth(2).waitFor();
    await well(page);
    await picture(page, `narrow-${name.replace('.html', '') || 'index'}`);
    await page.context().close();
  }
});

test('chat: acknowledged, typing, a line that is cut and what is caught up', async () => {
  const [a, b] = await windows(await startSite(), '/demo/chat.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) await connected(page);
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
  for (const page of [a, b]) {
    await sees(page, 'written offline', 'stored');
    expect(await page.locator('#messages li').count()).toBe(4);
  }
  await picture(a, 'chat');
  await picture(b, 'chat-dark');
  await well(a, b);
});

test('notifications: two devices, one of them away', async () => {
  const [phone, desk] = await windows(await startSite(), '/demo/notifications.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [phone, desk]) await connected(page);
  await phone.click('#line');
  await phone.locator('.state:not(.open)').waitFor();
  for (const n of [1, 2]) {
    await desk.fill('#text', `Parcel ${n} has arrived`);
    await desk.click('text="Notify"');
    await desk.locator('#list li', { hasText: `Parcel ${n}` }).waitFor();
  }
  expect(await number(phone, '#unread')).toBe(0);
  await phone.click('#line');
  for (const page of [phone, desk]) {
    await page.locator('#list li', { hasText: 'Parcel 2' }).waitFor();
    expect(await number(page, '#unread')).toBe(2);
  }
  await picture(phone, 'notifications');
  await picture(desk, 'notifications-dark');
  await well(phone, desk);
});

test('prices: drawn as they come, none missing', async () => {
  const [a, b] = await windows(await startSite(), '/demo/prices.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await until('ticks', async () => await number(page, '#count') > 60, 30_000);
    expect(await number(page, '#missing')).toBe(0);
    expect((await page.locator('polyline').getAttribute('points'))!.split(' ').length).toBeGreaterThan(60);
    // The backend feeds them: there is nothing to press.
    expect(await page.locator('#feed').isVisible()).toBe(false);
  }
  await picture(a, 'prices');
  await picture(b, 'prices-dark');
  await well(a, b);
});

test('job: two windows, one opened late', async () => {
  const site = await startSite();
  const [a] = await windows(site, '/demo/job.html', 'light') as [Tab];
  await connected(a);
  await a.click('#start');
  await until('some progress', async () => parseInt(await text(a, '#percent'), 10) > 10);
  const [, b] = await windows(site, (await a.locator('#share').getAttribute('href'))!, 'light', 'dark') as [Tab, Tab];
  await until('it is there at once', async () => parseInt(await text(b, '#percent'), 10) > 10);
  await picture(b, 'job-dark');
  for (const page of [a, b]) {
    await page.locator('#percent', { hasText: '100 %' }).waitFor();
    expect(await text(page, '#step')).toBe('done');
  }
  await picture(a, 'job');
  await well(a, b);
});

test('cursors and a shared text: both windows come to the same', async () => {
  const site = await startSite();
  const [a, b] = await windows(site, '/demo/cursors.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) await connected(page);
  await write(a, b);
  for (const [from, to] of [[a, b], [b, a]] as const) {
    const { x, y } = (await from.locator('#text').boundingBox())!;
    await from.mouse.move(x + 100, y + 60);
    await from.mouse.move(x + 180, y + 90, { steps: 5 });
    await to.locator('.pointer').waitFor();
  }
  await picture(a, 'cursors');
  await picture(b, 'cursors-dark');
  const [late] = await windows(site, '/demo/cursors.html', 'light') as [Tab];
  await until('who comes late has it', async () => await written(late) === TEXT);
  await well(a, b, late);
});

test('game: two boats see each other, one catches the buoy', async () => {
  const [a, b] = await windows(await startSite(), '/demo/game.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await connected(page);
    await page.locator('#players', { hasText: '2 boats' }).waitFor();
  }
  await until('positions of the other', async () => await number(a, '#rate') > 30);
  await sail(a, 2);
  expect(await text(b, '#score')).toBe('0 caught');
  await b.locator('#best li', { hasText: '2' }).waitFor();
  await picture(a, 'game');
  await picture(b, 'game-dark');
  await well(a, b);
}, 90_000);

test('dashboard: every second in both windows', async () => {
  const [a, b] = await windows(await startSite(), '/demo/dashboard.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await page.locator('#nodes li', { hasText: 'up' }).nth(2).waitFor();
    await expect.poll(() => number(page, '#connections'), { timeout: 10_000 }).toBe(2);
    await expect.poll(() => number(page, '#delivered'), { timeout: 10_000 }).toBeGreaterThan(0);
  }
  const points = async () => (await a.locator('#chart polyline').first().getAttribute('points'))!.split(' ').length;
  await until('ten seconds', async () => await points() >= 10, 20_000);
  await picture(a, 'dashboard');
  await picture(b, 'dashboard-dark');
  await well(a, b);
});

test('break it: what each window publishes, it receives', async () => {
  const [a, b] = await windows(await startSite(), '/demo/break.html', 'light', 'dark') as [Tab, Tab];
  for (const page of [a, b]) {
    await connected(page);
    await page.click('#run');
    await page.locator('#nodes li', { hasText: 'ready' }).nth(2).waitFor();
    await until('numbers', async () => await number(page, '#received') > 20, 30_000);
    await page.click('#run');
    await until('all are in', async () => await number(page, '#received') === await number(page, '#sent'), 30_000);
    expect([await number(page, '#missing'), await number(page, '#twice'), await number(page, '#gaps')]).toEqual([0, 0, 0]);
  }
  await well(a, b);
});

test('one node with the embedded broker serves what needs no backend', async () => {
  const { url } = await startNode();
  const [index, a, b] = await windows({ url }, '/demo/', 'light', 'light', 'dark') as [Tab, Tab, Tab];
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
  await well(index, a, b);
});
