// A Redis client in a few lines, so that the demo needs no packages: one connection, commands in order.

import { once } from 'node:events';
import { connect } from 'node:net';

/** Connects to `redis://host:port`; gives a function that runs a command and resolves with its answer as text. */
export async function redis(url) {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port || 6379), hostname).setNoDelay();
  await once(socket, 'connect');
  const waiting = [];
  let text = '';
  socket.setEncoding('utf8').on('data', (data) => {
    text += data;
    for (let reply; (reply = parse(text)) !== undefined; text = text.slice(reply.end)) {
      const { resolve, reject } = waiting.shift();
      if (reply.error) reject(new Error(reply.error));
      else resolve(reply.value);
    }
  });
  // A connection that breaks is the end of the process; its supervisor starts it anew.
  socket.on('close', () => waiting.forEach(({ reject }) => reject(new Error('Redis has gone'))));
  socket.on('error', () => {});
  const run = (...words) => new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    const parts = words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`);
    socket.write(`*${words.length}\r\n${parts.join('')}`);
  });
  return { run, close: () => socket.end(), closed: once(socket, 'close') };
}

/** The reply at the beginning of the text, and where it ends; nothing if it is not whole. Answers here are ASCII. */
function parse(text, at = 0) {
  const end = text.indexOf('\r\n', at);
  if (end < 0) return undefined;
  const rest = text.slice(at + 1, end);
  switch (text[at]) {
    case '-': return { error: rest, end: end + 2 };
    case '$': {
      if (rest === '-1') return { value: null, end: end + 2 };
      const stop = end + 2 + Number(rest);
      return text.length < stop + 2 ? undefined : { value: text.slice(end + 2, stop), end: stop + 2 };
    }
    case '*': {
      const value = [];
      let next = end + 2;
      for (let n = 0; n < Number(rest); n += 1) {
        const item = parse(text, next);
        if (!item) return undefined;
        value.push(item.value);
        next = item.end;
      }
      return { value, end: next };
    }
    default: return { value: rest, end: end + 2 };
  }
}
