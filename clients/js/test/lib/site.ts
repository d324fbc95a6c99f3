// The demos as docker-compose.yml serves them: the files of nginx/ in front of three real nodes, a real Redis, and the
// demos' backend.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import WebSocket from 'ws';
import { Process } from '../../../tests/lib/process.mjs';
import { freePort } from '../../../tests/lib/ports.mjs';
import { startNode, startRedis } from './world.js';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

async function startBackend(redis: any, nodes: any[]): Promise<number> {
  const env = { REDIS_URL: redis.url, ADMINS: nodes.map(({ admin }) => admin).join(' '), PORT: '0', HOST: '127.0.0.1' };
  const backend = new Process(process.execPath, [join(root, 'examples/backend/server.mjs')], env);
  onTestFinished(async () => void (await backend.kill()));
  const [, port] = await backend.answers('the backend', () => /listens on (\d+)/.exec(backend.output));
  return Number(port);
}

async function startNginx(nodes: any[], backend: number): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'tidewire-demos-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  cpSync(join(root, 'nginx'), folder, { recursive: true });
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, 'certs'));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-keyout', join(folder, 'certs/tls.key'), '-out', join(folder, 'certs/tls.crt')], { stdio: 'pipe' });
  symlinkSync(join(root, 'examples'), join(folder, 'demo'));
  const [http, https] = [await freePort(), await freePort()];
  const edit = (from: string, to: string, change: (text: string) => string) =>
    writeFileSync(join(folder, to), change(readFileSync(from, 'utf8')));
  const listen = join(folder, 'site/listen.conf');
  edit(listen, 'site/listen.conf', (text) => text.replace('listen 8080', `listen 127.0.0.1:${http}`).replace('listen 8443', `listen 127.0.0.1:${https}`));
  edit(join(root, 'deploy/nginx/demo.conf'), 'site/paths-demo.conf', (text) => text.replace('http://demo:8090', `http://127.0.0.1:${backend}`));
  writeFileSync(join(folder, 'site/nodes.conf'), nodes.map(({ host }) => `server ${host} max_fails=1 fail_timeout=3s;\n`).join(''));

  const url = `http://127.0.0.1:${http}`;
  const args = ['-e', 'stderr', '-p', folder, '-c', 'nginx.conf', '-g', 'daemon off; master_process off;'];
  const nginx = new Process('nginx', args, { PATH: `${process.env.PATH}:/usr/sbin` });
  onTestFinished(async () => void (await nginx.kill()));
  await nginx.answers('nginx', async () => (await fetch(`${url}/demo/`)).ok);
  return url;
}

/** How many connections a node has. */
export async function connectionsOf(node: any): Promise<number> {
  const metrics = await (await fetch(`${node.admin}/metrics`)).text();
  return [...metrics.matchAll(/^tidewire_connections\{.*\} (\d+)/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
}

/** For each node a value of nginx's cookie with which it sends a client there. */
async function keysOf(url: string, nodes: any[]): Promise<string[]> {
  const keys: string[] = [];
  const sockets: WebSocket[] = [];
  let before = await Promise.all(nodes.map(connectionsOf));
  for (let n = 0; Object.keys(keys).length < nodes.length; n += 1) {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/ws`, { headers: { cookie: `tidewire_sticky=window-${n}` } });
    sockets.push(socket);
    await once(socket, 'message');
    const after = await Promise.all(nodes.map(connectionsOf));
    const at = after.findIndex((count, one) => count > before[one]!);
    if (at >= 0) keys[at] ??= `window-${n}`;
    before = after;
  }
  for (const socket of sockets) socket.terminate();
  return keys;
}

/** A site: its address, its nodes, and for each of them the cookie that leads there. */
export interface Site {
  url: string;
  nodes: any[];
  redis: any;
  keys: string[];
}

/** Three nodes behind nginx, with the demos at `url`/demo/. */
export async function startSite(): Promise<Site> {
  const redis = await startRedis();
  const env = { TIDEWIRE_AUTH__MODE: 'open', TIDEWIRE_DEMO: 'true', TIDEWIRE_DRAIN__TIME: '2s', TIDEWIRE_NAMESPACES__TEXT__HISTORY_SIZE: '1000' };
  const nodes = await Promise.all([1, 2, 3].map(() => startNode({ redis, env })));
  const backend = await startBackend(redis, nodes);
  const url = await startNginx(nodes, backend);
  return { url, nodes, redis, keys: await keysOf(url, nodes) };
}
