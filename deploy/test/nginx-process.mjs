// A real nginx with the files of nginx/ in a temporary folder: only site/ is replaced, by
// ports and nodes of the test.

import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd, start, stop, until } from './harness.mjs';
import { freePort } from '../../clients/tests/lib/ports.mjs';
import { request } from './clients.mjs';

const files = fileURLToPath(new URL('../../nginx/', import.meta.url));

/** The folder where nginx lives in the test, with its certificate. */
function prefix() {
  const folder = mkdtempSync(join(tmpdir(), 'tidewire-nginx-'));
  atEnd(() => rmSync(folder, { recursive: true, force: true }));
  cpSync(files, folder, { recursive: true });
  // Workers of a master that runs as root are another user.
  chmodSync(folder, 0o755);
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
    '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', join(folder, 'tls.key'),
    '-out', join(folder, 'tls.crt')], { stdio: 'pipe' });
  return folder;
}

/**
 * Starts nginx in front of the nodes (ports on loopback).
 * `edit` may change a file's text: {'locations.conf': (text) => …}.
 */
export async function startNginx(nodes, edit = {}) {
  const folder = prefix();
  const [http, https] = [await freePort(), await freePort()];
  const servers = nodes.map((port) => `server 127.0.0.1:${port} max_fails=1 fail_timeout=3s;\n`);
  writeFileSync(join(folder, 'site/nodes.conf'), servers.join(''));
  const listen = readFileSync(join(folder, 'site/listen.conf'), 'utf8')
    .replace('listen 8080', `listen 127.0.0.1:${http}`)
    .replace('listen 8443', `listen 127.0.0.1:${https}`)
    .replaceAll('certs/tls', 'tls');
  writeFileSync(join(folder, 'site/listen.conf'), listen);
  for (const [name, change] of Object.entries(edit)) {
    const text = readFileSync(join(folder, name), 'utf8');
    if (change(text) === text) throw new Error(`${name}: the change found nothing to change`);
    writeFileSync(join(folder, name), change(text));
  }

  const args = ['-e', 'stderr', '-p', folder, '-c', 'nginx.conf'];
  // Not killed at the end: its workers would stay.
  const child = start('nginx', [...args, '-g', 'daemon off;'], { lastSignal: 'SIGTERM' });
  const plain = `http://127.0.0.1:${http}`;
  try {
    await until('nginx answers', () => request(plain, '/metrics'));
  } catch (error) {
    throw new Error(`${error.message}\n${child.output}`);
  }
  return {
    plain,
    tls: `https://127.0.0.1:${https}`,
    /** All that it has written: the access log and the error log. */
    logs: () => readFileSync(join(folder, 'access.log'), 'utf8') + child.output,
    /** Reloads, and waits until new workers have taken over. */
    reload: async () => {
      const before = workers(child.pid);
      execFileSync('nginx', [...args, '-s', 'reload'], { stdio: 'pipe' });
      await until('new workers', () => workers(child.pid).some((pid) => !before.includes(pid)));
      // Old workers say so in their title once they take no new clients.
      await until('old workers retired', () => before.every((pid) => title(pid).includes('shutting down')));
    },
    stop: () => stop(child, 'SIGTERM'),
  };
}

const workers = (master) => readFileSync(`/proc/${master}/task/${master}/children`, 'utf8')
  .trim().split(' ').filter(Boolean);

const title = (pid) => (existsSync(`/proc/${pid}/cmdline`)
  ? readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  : 'shutting down');
