// Windows of a real Chromium on the demos, and their pictures.

import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Browser, type Page, chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
/** Where pictures are kept. */
const artifacts = fileURLToPath(new URL('../../../../artifacts/', import.meta.url));

let browser: Browser;

/** A browser for all tests of a file. */
export function useBrowser(): void {
  beforeAll(async () => {
    const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
    if (!executablePath) throw new Error(`no Chromium at ${PLACES.join(', ')}; set CHROMIUM`);
    browser = await chromium.launch({ executablePath, args: FLAGS });
  });
  afterAll(() => browser?.close());
}

/** A page, and what went wrong in it. */
export type Tab = Page & { faults: string[] };

/** Windows without anything in common, each through nginx to a node of its own as long as there are enough. */
export async function windows(site: { url: string; keys?: string[] }, path: string, ...looks: ('light' | 'dark' | 'narrow')[]): Promise<Tab[]> {
  const { url, keys = [] } = site;
  return Promise.all(looks.map(async (look, n) => {
    const colorScheme = look === 'dark' ? look : 'light';
    const viewport = look === 'narrow' ? { width: 360, height: 700 } : { width: 900, height: 700 };
    const context = await browser.newContext({ colorScheme, viewport });
    onTestFinished(() => context.close());
    const key = keys[n % keys.length];
    if (key) await context.addCookies([{ name: 'tidewire_sticky', value: key, url }]);
    context.setDefaultTimeout(20_000);
    const page = Object.assign(await context.newPage(), { faults: [] as string[] });
    page.on('pageerror', (error) => page.faults.push(String(error)));
    await page.goto(new URL(path, url).href);
    return page;
  }));
}

export const connected = (page: Page) => page.locator('.state.open').waitFor();
export const text = (page: Page, selector: string) => page.locator(selector).innerText();
export const number = async (page: Page, selector: string) => Number(await text(page, selector));

/** A picture of the whole page, for people to look at. */
export async function picture(page: Page, name: string): Promise<void> {
  mkdirSync(artifacts, { recursive: true });
  await page.screenshot({ path: `${artifacts}demo-${name}.png`, fullPage: true });
}

/** Nothing went wrong in them, and nothing sticks out of them. */
export async function well(...pages: Tab[]): Promise<void> {
  for (const page of pages) {
    expect(page.faults).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth'), page.url()).toBeLessThanOrEqual(0);
  }
}
