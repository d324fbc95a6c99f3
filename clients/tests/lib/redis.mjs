// A real redis-server on a port of its own.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './ports.mjs';
import { Process } from './process.mjs';

const run = promisify(execFile);

/** A redis-server that keeps nothing. */
export class Redis {
  #process;
  #folder = mkdtempSync(join(tmpdir(), 'tidewire-redis-'));

  async start() {
    for (;;) {
      const port = this.port ?? await freePort();
      const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.#folder];
      this.#process = new Process('redis-server', args.map(String));
      const ready = /Ready to accept connections|Address already in use/;
      const [said] = await this.#process.answers('redis-server', () => ready.exec(this.#process.output));
      // Another process may have taken the port in between.
      if (said.startsWith('Address')) continue;
      this.port = port;
      this.url = `redis://127.0.0.1:${port}`;
      return this;
    }
  }

  /** Kills it; `start` brings it back on the same port, empty. */
  async kill() {
    await this.#process?.kill();
  }

  async end() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Runs a command with redis-cli, as a person would; gives what it prints. */
  async cli(...command) {
    const { stdout } = await run('redis-cli', ['-p', String(this.port), ...command]);
    return stdout.trim();
  }
}

/** One that ends with the test. */
export async function startRedis(t) {
  const redis = new Redis();
  t.after(() => redis.end());
  return redis.start();
}
