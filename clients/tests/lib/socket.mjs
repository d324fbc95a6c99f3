// WebSockets with the npm package `ws`, and `@msgpack/msgpack` for the subprotocol that wants it.

import { once } from 'node:events';
import { decode, encode } from '@msgpack/msgpack';
import { WebSocket } from 'ws';
import { Inbox, soon } from './wait.mjs';

/** An open WebSocket: its frames, parsed as its subprotocol has them, in an inbox. */
export class Socket {
  #inbox = new Inbox();

  constructor(url, protocols = [], options = {}) {
    this.raw = new WebSocket(url, protocols, options);
    this.raw.on('message', (data, isBinary) => {
      if (this.isPacked) this.#inbox.put(isBinary ? decode(new Uint8Array(data)) : data.toString());
      else this.#inbox.put(isBinary ? data : JSON.parse(data));
    });
    this.raw.on('close', (code, reason) => {
      this.#inbox.close({ code, reason: reason.toString() });
    });
    this.raw.on('error', () => {});
  }

  /** Opens one that ends with the test; by default at /v1/ws with these query parameters. */
  static async open(t, node, { channels = [], protocols = [], options = {} } = {}) {
    const query = channels.map((channel) => `channel=${encodeURIComponent(channel)}`).join('&');
    const socket = new Socket(`${node.ws}/v1/ws${query && `?${query}`}`, protocols, options);
    t.after(() => socket.raw.terminate());
    await soon('a WebSocket to open', once(socket.raw, 'open'));
    socket.welcome = await socket.next();
    return socket;
  }

  /** Whether its frames are MessagePack. */
  get isPacked() {
    return this.raw.protocol === 'tidewire.msgpack';
  }

  send(frame) {
    this.raw.send(this.isPacked ? encode(frame) : JSON.stringify(frame));
  }

  /** Sends a frame with an id and gives what answers it, leaving out what comes before. */
  async ask(frame) {
    this.send(frame);
    return this.find((answer) => answer.id === frame.id);
  }

  next() {
    return this.#inbox.next();
  }

  find(fits) {
    return this.#inbox.find(fits);
  }

  /** The next message frame, leaving out others. */
  message() {
    return this.find((frame) => frame.type === 'message');
  }

  take(count) {
    return this.#inbox.take(count);
  }

  /** `{code, reason}` once it is closed. */
  closed() {
    return this.#inbox.end();
  }
}

/** Tries to open one that must be refused; gives the HTTP answer: status, headers, body. */
export async function refused(url, protocols = [], options = {}) {
  const socket = new WebSocket(url, protocols, options);
  const answered = new Promise((resolve, reject) => {
    socket.on('open', () => reject(new Error('it was not refused')));
    socket.on('error', reject);
    socket.on('unexpected-response', (_, answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => {
        resolve({ status: answer.statusCode, headers: answer.headers, text });
      });
    });
  });
  try {
    return await soon('a refusal', answered);
  } finally {
    socket.on('error', () => {});
    socket.terminate();
  }
}
