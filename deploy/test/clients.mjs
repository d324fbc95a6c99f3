// Plain clients for the tests of nginx and compose: HTTP, SSE and WebSocket, each just enough
// to see what arrives and when. They speak HTTP/1.1 by Node's own modules, HTTP/2 too for SSE;
// the WebSocket is the package `ws`.

import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { createRequire } from 'node:module';

// The development certificate is self-signed.
const tls = { rejectUnauthorized: false };
const packages = createRequire(new URL('../../clients/tests/package.json', import.meta.url));
const { WebSocket } = packages('ws');

/** One request; `path` goes out as it is written, without normalisation. */
export function request(base, path, { method = 'GET', headers = {}, body, agent } = {}) {
  const url = new URL(base);
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? https.request : http.request;
    const sent = send({ host: url.hostname, port: url.port, path, method, headers, agent: agent ?? false, ...tls });
    sent.on('error', reject);
    sent.on('response', (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (data) => { text += data; });
      answer.on('error', reject);
      answer.on('end', () => resolve({
        status: answer.statusCode,
        headers: answer.headers,
        text,
        json: () => JSON.parse(text),
      }));
    });
    sent.end(body);
  });
}

/** Publishes one message over HTTP; fails unless it was acknowledged. */
export async function publish(base, channel, message, query = '') {
  const path = `/v1/channels/${encodeURIComponent(channel)}/messages${query}`;
  const headers = { 'content-type': 'application/json' };
  const answer = await request(base, path, { method: 'POST', headers, body: JSON.stringify(message) });
  if (answer.status !== 200) throw new Error(`publish: ${answer.status} ${answer.text}`);
  return answer.json();
}

// What has arrived and was not asked for yet, and the end of it.
class Inbox {
  #items = [];
  #waiting = [];
  #end;

  put(item) {
    this.#items.push(item);
    this.#wake();
  }

  close(reason) {
    this.#end ??= reason;
    this.#wake();
  }

  get ended() {
    return this.#end;
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** The next item that fits, leaving out others before it. */
  async next(fits = () => true, seconds = 10) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      while (this.#items.length > 0) {
        const item = this.#items.shift();
        if (fits(item)) return item;
      }
      if (this.#end) throw new Error(`ended: ${this.#end}`);
      await this.#change(end, `nothing that fits within ${seconds} s`);
    }
  }

  /** The reason, once it has ended. */
  async end(seconds = 10) {
    const end = Date.now() + seconds * 1000;
    while (!this.#end) await this.#change(end, `not ended within ${seconds} s`);
    return this.#end;
  }

  #change(end, message) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(message)), Math.max(0, end - Date.now()));
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

// Splits a stream's text into events: {event, data, id, retry, comment}.
function eventParser(inbox) {
  let rest = '';
  return (text) => {
    rest += text;
    for (let cut = rest.indexOf('\n\n'); cut >= 0; cut = rest.indexOf('\n\n')) {
      const item = {};
      for (const line of rest.slice(0, cut).split('\n')) {
        const colon = line.indexOf(':');
        const [name, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
        if (name === '') item.comment = value;
        else if (name === 'data' && 'data' in item) item.data += `\n${value}`;
        else item[name] = value;
      }
      rest = rest.slice(cut + 2);
      inbox.put(item);
    }
  };
}

/** Opens an SSE stream over HTTP/1.1; resolves at its head. */
export function sse(base, path, headers = {}) {
  const url = new URL(base);
  const inbox = new Inbox();
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? https.request : http.request;
    const sent = send({ host: url.hostname, port: url.port, path, headers, agent: false, ...tls });
    sent.on('error', (error) => {
      inbox.close(error.code ?? error.message);
      reject(error);
    });
    sent.on('response', (answer) => {
      answer.setEncoding('utf8');
      answer.on('data', eventParser(inbox));
      answer.on('error', (error) => inbox.close(error.code ?? error.message));
      answer.on('close', () => inbox.close('closed'));
      resolve({
        status: answer.statusCode,
        headers: answer.headers,
        next: (...args) => inbox.next(...args),
        end: (...args) => inbox.end(...args),
        isOpen: () => !inbox.ended,
        close: () => sent.destroy(),
      });
    });
    sent.end();
  });
}

/** Opens an SSE stream over HTTP/2 (TLS, by ALPN); resolves at its head. */
export function sseOverHttp2(base, path) {
  const inbox = new Inbox();
  return new Promise((resolve, reject) => {
    const session = http2.connect(base, tls);
    session.on('error', reject);
    const stream = session.request({ ':path': path });
    stream.setEncoding('utf8');
    stream.on('error', (error) => inbox.close(error.message));
    stream.on('close', () => inbox.close('closed'));
    stream.on('data', eventParser(inbox));
    stream.on('response', (headers) => resolve({
      status: headers[':status'],
      protocol: session.alpnProtocol,
      headers,
      next: (...args) => inbox.next(...args),
      isOpen: () => !inbox.ended,
      close: () => session.destroy(),
    }));
  });
}

/** Opens a WebSocket; resolves when it is open, fails with the HTTP answer if it is refused. */
export function webSocket(base, path, headers = {}) {
  const inbox = new Inbox();
  const socket = new WebSocket(base.replace(/^http/, 'ws') + path, { headers, ...tls });
  socket.on('message', (data) => inbox.put(JSON.parse(data)));
  socket.on('close', (code) => inbox.close(`closed ${code}`));
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('unexpected-response', (_, answer) => {
      answer.resume();
      reject(Object.assign(new Error(`refused with ${answer.statusCode}`), { answer }));
    });
    socket.on('open', () => resolve({
      next: (...args) => inbox.next(...args),
      end: (...args) => inbox.end(...args),
      isOpen: () => !inbox.ended,
      send: (frame) => socket.send(JSON.stringify(frame)),
      close: () => socket.terminate(),
    }));
  });
}

/** A message's frame or event whose payload has this `n`. */
export const numbered = (n) => (item) => {
  if (item.type === 'message') return item.payload?.n === n;
  return item.data?.startsWith('{') && JSON.parse(item.data).n === n;
};
