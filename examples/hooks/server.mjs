// An application that a gateway asks: checks the signature of each question, lets users into their
// own rooms, saves each message first, and answers a question of its own. Node alone, no packages.
//
//   SECRET  what stands in hooks.secret of the gateway
//   PORT    where it listens (3000)
//
//   [hooks]
//   connect = "http://127.0.0.1:3000/connect"      # and so on: subscribe, publish, rpc
//   secret = "…"

import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const { SECRET = '', PORT = '3000', HOST = '127.0.0.1' } = process.env;
if (SECRET.length < 32) throw new Error('SECRET must be that of hooks.secret, 32 bytes or more');

/** How old a question may be, in seconds: what was overheard cannot be asked again tomorrow. */
const MAX_AGE = 60;
/** Larger than any question: the gateway's frames have 64 KiB. */
const MAX_BYTES = 256 * 1024;

/** Whether the body is the gateway's, and new: `t=<seconds>,v1=<hex>`, with a v1 for each secret. */
export function isSigned(header, body, now = Date.now() / 1000) {
  const parts = (header ?? '').split(',').map((part) => part.split('='));
  const time = parts.find(([name]) => name === 't')?.[1] ?? '';
  if (!/^\d+$/.test(time) || Math.abs(now - Number(time)) > MAX_AGE) return false;
  const expected = createHmac('sha256', SECRET).update(`${time}.`).update(body).digest();
  return parts.some(([name, hex]) => {
    const given = name === 'v1' ? Buffer.from(hex ?? '', 'hex') : Buffer.alloc(0);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

const no = (code, message) => ({ error: { code, message } });
/** What a database would keep: by messageId, so that a message that comes again is the same one. */
const saved = new Map();

const hooks = {
  connect: ({ user }) => (user === 'mallory' ? no('forbidden', 'you are banned') : {}),

  // room:alice:… is Alice's.
  subscribe: ({ channel, user }) => {
    const owner = channel.split(':')[1];
    return owner === user || owner === 'public' ? {} : no('forbidden', 'not your room');
  },

  publish: ({ channel, messageId, payload, user }) => {
    const text = payload?.text;
    if (typeof text !== 'string' || !text.trim()) return no('bad_request', 'a message has a text');
    let row = saved.get(messageId);
    if (!row) {
      row = { number: saved.size + 1, channel, user, text: text.trim() };
      saved.set(messageId, row);
    }
    // Subscribers get the row; its number goes to the publisher with the ack.
    return { payload: { text: row.text, by: row.user }, result: { number: row.number } };
  },

  rpc: ({ method, payload }) => {
    switch (method) {
      case 'messages.count': return { payload: { count: saved.size } };
      case 'echo': return { payload };
      default: return no('not_found', `no method '${method}'`);
    }
  },
};

async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const answer = (status, body) => {
    const text = body === undefined ? '' : JSON.stringify(body);
    response.writeHead(status, { 'content-type': 'application/json' }).end(text);
  };
  try {
    const body = request.method === 'POST' ? await read(request) : undefined;
    if (!body) return answer(405);
    if (!isSigned(request.headers['tidewire-signature'], body)) return answer(401);
    const question = JSON.parse(body);
    // By the signed body, not by the path: what was signed for one hook is no question to another.
    const hook = Object.hasOwn(hooks, question.hook) ? hooks[question.hook] : undefined;
    return hook ? answer(200, hook(question)) : answer(404);
  } catch (error) {
    console.error(error);
    return answer(500);
  }
});
server.listen(Number(PORT), HOST, () => console.log(`listening on ${HOST}:${server.address().port}`));
