// A headless Chromium, the one that the system has (CHROMIUM, else where distributions put it).

import { existsSync, mkdirSync } from 'node:fs';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const artifacts = fileURLToPath(new URL('../../../artifacts/', import.meta.url));

// No sandbox: the tests may run as root, and only our own pages are shown. The rest keeps it from
// calling home. Names that no test page resolves for real lead to this machine, as an attacker's would.
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP *.example 127.0.0.1',
];

/** One browser for all tests of a file. */
export function sharedBrowser() {
  const shared = {};
  before(async () => {
    const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
    if (!executablePath) throw new Error(`no Chromium at ${PLACES.join(', ')}; set CHROMIUM`);
    shared.browser = await chromium.launch({ executablePath, args: FLAGS });
  });
  after(() => shared.browser?.close());
  return shared;
}

/** A window of its own, without cookies or cache of others, that ends with the test. */
export async function openWindow(t, shared, options = {}) {
  const context = await shared.browser.newContext(options);
  t.after(() => context.close());
  context.setDefaultTimeout(15_000);
  return context;
}

/** Opens a tab; what goes wrong in it (exceptions, the policy) is kept in `tab.faults`. */
export async function openTab(context, url) {
  const tab = await context.newPage();
  tab.faults = [];
  tab.on('pageerror', (error) => tab.faults.push(error.message));
  tab.on('console', (message) => {
    if (message.type() === 'error') tab.faults.push(message.text());
  });
  await tab.goto(url);
  return tab;
}

/** Keeps a picture of the whole page under artifacts/, which git ignores. */
export async function screenshot(tab, name) {
  mkdirSync(artifacts, { recursive: true });
  await tab.screenshot({ path: `${artifacts}${name}.png`, fullPage: true });
}
