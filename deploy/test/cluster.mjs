// Real nodes that share a real Redis, each a process on free ports of the loopback address.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { request } from './clients.mjs';
import { atEnd, ensure, start, until } from './harness.mjs';
import { freePort } from '../../clients/tests/lib/ports.mjs';

const binary = process.env.TIDEWIRE_BIN
  ?? fileURLToPath(new URL('../../target/debug/tidewire', import.meta.url));

function folder(name) {
  const path = mkdtempSync(join(tmpdir(), `tidewire-${name}-`));
  atEnd(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Starts a Redis; returns its URL. */
export async function startRedis() {
  const port = await freePort();
  start('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', folder('redis')]);
  return `redis://127.0.0.1:${port}`;
}

/** Starts so many nodes; `config` is the text of their configuration file. */
export async function startNodes(redis, count, config) {
  const nodes = [];
  for (let n = 0; n < count; n += 1) {
    nodes.push(await startNode(redis, [await freePort(), await freePort()], config));
  }
  return nodes;
}

/** Starts a node on its ports (listen, admin) and waits until it is ready. */
export async function startNode(redis, ports, config = '') {
  ensure(existsSync(binary), `${binary} is missing: cargo build -p tidewire`);
  const [listen, admin] = ports;
  const file = join(folder('node'), 'tidewire.toml');
  // They stand behind nginx, and are open: that must be written down.
  writeFileSync(file, config.includes('[auth]') ? config : `${config}\n[auth]\nmode = "open"\n`);
  const child = start(binary, ['serve', '--config', file, '--listen', `127.0.0.1:${listen}`,
    '--admin', `127.0.0.1:${admin}`, '--redis', redis]);
  const node = { port: listen, ports, child, direct: `http://127.0.0.1:${listen}`, admin: `http://127.0.0.1:${admin}` };
  await until(`node on ${listen} is ready`, async () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${child.output}`);
    return (await request(node.admin, '/readyz')).status === 200;
  });
  return node;
}

/** The sum of a metric over all its labels. */
export async function metric(node, name) {
  const { text } = await request(node.admin, '/metrics');
  const values = text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\d+)`, 'gm'));
  return [...values].reduce((sum, [, n]) => sum + Number(n), 0);
}

/** How many clients a node holds, by its own count. */
export const connections = (node) => metric(node, 'tidewire_connections');
