// Gateway nodes: `tidewire serve` as processes of their own, on ports that the system chooses.

import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Process } from './process.mjs';

/** The binary: TIDEWIRE_BIN, else the debug build. */
export const BINARY = process.env.TIDEWIRE_BIN
  ?? fileURLToPath(new URL('../../../target/debug/tidewire', import.meta.url));

/** A running node. */
export class Node {
  #process;
  #flags;
  #env;

  /** `flags` are those of `serve`; `env` its settings, such as {TIDEWIRE_DRAIN__TIME: '1s'}. */
  constructor({ flags = [], env = {} }) {
    this.#flags = flags;
    // Channels are live unless a test says otherwise: most of these tests are about transports.
    const live = { TIDEWIRE_NAMESPACES__DEFAULT__HISTORY_SIZE: '0' };
    this.#env = { TIDEWIRE_LOG__LEVEL: 'debug', TIDEWIRE_LANES: '2', ...live, ...env };
  }

  async start(listen = '127.0.0.1:0') {
    // Started again, its operators find it where it was.
    const admin = this.admin ? new URL(this.admin).host : '127.0.0.1:0';
    const args = ['serve', '--listen', listen, '--admin', admin, ...this.#flags];
    this.#process = new Process(BINARY, args, this.#env);
    const banner = /listens on (http:\S+) \(admin: (http:\S+)\/metrics/;
    const [, url, adminUrl] = await this.#process.answers(
      'the banner', () => banner.exec(this.#process.output));
    this.url = url;
    this.admin = adminUrl;
    await this.ready();
    return this;
  }

  /** Waits until the node can do its job. */
  async ready() {
    await this.#process.answers('/readyz', async () => (await fetch(`${this.admin}/readyz`)).ok);
  }

  /** Waits until the node says that it cannot do its job; gives the reason. */
  async unready() {
    return this.#process.answers('/readyz 503', async () => {
      const answer = await fetch(`${this.admin}/readyz`);
      return answer.status === 503 && answer.text();
    });
  }

  /** Kills it, does what is to be done meanwhile, starts it again where it listened. */
  async restart(meanwhile = async () => {}) {
    await this.kill();
    await meanwhile();
    await this.start(new URL(this.url).host);
  }

  async kill() {
    await this.#process?.kill();
  }

  /** Kills it; shows its log where that is wanted. */
  async end() {
    await this.kill();
    if (process.env.SHOW_LOGS) console.log(`log of ${this.url}:\n${this.log}`);
  }

  /** Asks it to stop (SIGTERM). */
  terminate() {
    this.#process.signal('SIGTERM');
  }

  ended() {
    return this.#process.ended();
  }

  get host() {
    return new URL(this.url).host;
  }

  get ws() {
    return this.url.replace('http', 'ws');
  }

  get log() {
    return this.#process?.output ?? 'not started';
  }

  /** A metric's value, by its name and labels as /metrics writes them. */
  async metric(name) {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const line = text.split('\n').find((one) => one.startsWith(`${name} `));
    return line === undefined ? undefined : Number(line.slice(name.length + 1));
  }
}

/** A node for all tests of a file. Its log is shown at the end when SHOW_LOGS is set. */
export function sharedNode(options = {}) {
  const node = new Node(options);
  before(() => node.start());
  after(() => node.end());
  return node;
}

/** Starts a node that ends with the test `t`. */
export async function startNode(t, options = {}) {
  const node = new Node(options);
  t.after(() => node.end());
  return node.start(options.listen);
}
