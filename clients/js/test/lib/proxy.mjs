// A TCP proxy between client and gateway that breaks what it carries.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Proxy {
  #server;
  #pairs = new Set();
  #stalled = false;
  /** Where new connections go: `{host, port}`, or nothing to refuse them. */
  #target;
  /** Where clients connect. */
  url = '';
  /** Paths whose requests end the connection. */
  blocked = new Set();
  /** How many requests were seen, by path. */
  seen = new Map();

  constructor(node) {
    this.lead(node);
    this.#server = createServer((client) => this.#accept(client));
  }

  async start() {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  /** From now on new connections go to this node. */
  lead(node) {
    this.#target = { host: '127.0.0.1', port: Number(new URL(node.url).port) };
  }

  /** Breaks all connections. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  /** Nothing passes any more, and nobody is told: the peer has vanished without a FIN. */
  stall() {
    this.#stalled = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  /** New connections pass again. Those that were stalled stay so until they are given up. */
  heal() {
    this.#stalled = false;
  }

  end() {
    this.cut();
    this.#server.close();
  }

  #accept(client) {
    const node = connect(this.#target);
    const pair = [client, node];
    this.#pairs.add(pair);
    const over = () => {
      this.#pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) {
      socket.on('error', over);
      socket.on('close', over);
      socket.setNoDelay();
    }
    client.on('data', (data) => {
      // A request's head begins a packet: clients here do not send one while another waits.
      const [, path] = /^(?:GET|POST) ([^? ]+)/.exec(data.subarray(0, 200).toString('latin1')) ?? [];
      if (path) this.seen.set(path, (this.seen.get(path) ?? 0) + 1);
      if (this.blocked.has(path)) client.resetAndDestroy();
      else node.write(data);
    });
    node.on('data', (data) => client.write(data));
    if (this.#stalled) for (const socket of pair) socket.pause();
  }
}
