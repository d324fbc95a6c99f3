// What people do on the demos' pages.

import type { Page } from 'playwright-core';
import { text } from './windows.js';
import { until } from './world.js';

/** Says something in the chat. */
export async function say(page: Page, words: string): Promise<void> {
  await page.fill('#text', words);
  await page.press('#text', 'Enter');
}

/** Waits until the chat shows it with this mark. */
export const sees = (page: Page, words: string, tag: string) =>
  page.locator('#messages li', { hasText: words }).locator('.tag', { hasText: tag }).waitFor();

/** Steers a boat to the buoy, until it has caught so many. */
export const sail = (page: Page, count: number) => until('a catch', async () => {
  const { x, y, width, height } = (await page.locator('#sea').boundingBox())!;
  const [at, down] = (await page.locator('#sea').getAttribute('data-buoy'))!.split(' ').map(Number) as [number, number];
  await page.mouse.move(x + (at / 960) * width, y + (down / 540) * height);
  await page.mouse.move(x + (at / 960) * width + 1, y + (down / 540) * height);
  return parseInt(await text(page, '#score'), 10) >= count;
}, 60_000);

/** What is in the shared text. */
export const written = (page: Page) => page.locator('#text').inputValue();

/** What two windows write together. */
export const TEXT = 'Tonight the tide comes in,\nand at dawn it goes out.';

/** One writes at the beginning and the other at the end, at the same time; gives when both have the same. */
export async function write(a: Page, b: Page, meanwhile = async () => {}): Promise<void> {
  await a.locator('#text').pressSequentially('the tide comes in,\n');
  await until('the other has it', async () => (await written(b)).endsWith('in,\n'));
  await a.locator('#text').press('Control+Home');
  await b.locator('#text').press('Control+End');
  await Promise.all([
    a.locator('#text').pressSequentially('Tonight ', { delay: 60 }),
    b.locator('#text').pressSequentially('and at dawn it goes out.', { delay: 40 }),
    meanwhile(),
  ]);
  for (const page of [a, b]) await until('the same text', async () => await written(page) === TEXT, 20_000);
}
