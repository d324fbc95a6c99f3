// The demos' backend: feeds prices and the dashboard, runs jobs, and drains or crashes nodes. It knows Redis and the nodes' admin listeners,
// and no gateway.
//
//   REDIS_URL  redis://redis:6379
//   ADMINS     the admin listeners, "http://gateway-1-admin:8001 …"
//   PORT       where it listens (8090)

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { job } from './job.mjs';
import { watch } from './metrics.mjs';
import { redis } from './redis.mjs';

const { REDIS_URL = 'redis://127.0.0.1:6379', ADMINS = '', PORT = '8090', HOST = '0.0.0.0' } = process.env;
const admins = ADMINS.split(' ').filter(Boolean);
const MOST_JOBS = 50;

const { run, closed } = await redis(REDIS_URL);
// Whoever supervises it starts it again.
closed.then(() => process.exit(1));

/** Publishes on a stored channel. Until a gateway has loaded the function there is nobody to tell. */
async function publish(channel, event, payload) {
  const body = JSON.stringify({ event, payload });
  await run('FCALL', 'tidewire_publish', 1, `tidewire:${channel}`, body).catch(() => {});
}

/** The nodes' metrics, once a second. */
async function feedDashboard() {
  const watches = admins.map(watch);
  for (;;) {
    const nodes = await Promise.all(watches.map((look) => look()));
    await publish('metrics:cluster', 'second', { nodes });
    await new Promise((done) => setTimeout(done, 1_000));
  }
}

/** A random walk, ten ticks a second. */
async function feedPrices() {
  let price = 100;
  for (let n = 0; ; n += 1) {
    price = Math.max(1, price + (Math.random() - 0.5) * 2);
    await publish('prices:tide', 'tick', { n, price: Number(price.toFixed(2)) });
    await new Promise((done) => setTimeout(done, 100));
  }
}

let jobs = 0;
function startJob() {
  if (jobs >= MOST_JOBS) return [429, { code: 'too_many' }];
  const id = randomUUID().slice(0, 8);
  jobs += 1;
  job(run, id).catch((error) => console.error(`job ${id}: ${error.message}`)).finally(() => { jobs -= 1; });
  return [202, { id }];
}

const looks = admins.map(watch);

async function states() {
  return Promise.all(admins.map(async (admin, at) => {
    const node = at + 1;
    try {
      const [answer, { connections }] = await Promise.all([
        fetch(`${admin}/readyz`, { signal: AbortSignal.timeout(1_000) }), looks[at](),
      ]);
      return { node, state: answer.ok ? 'ready' : 'leaving', connections };
    } catch {
      return { node, state: 'down', connections: 0 };
    }
  }));
}

async function fault(number, what) {
  const admin = admins[number - 1];
  if (!admin) return [404, { code: 'not_found' }];
  try {
    const answer = await fetch(`${admin}/${what}`, { method: 'POST', signal: AbortSignal.timeout(2_000) });
    return [answer.status, {}];
  } catch (error) {
    // Who crashes was reached, and does not answer.
    const crashed = what === 'crash' && ['UND_ERR_SOCKET', 'ECONNRESET'].includes(error.cause?.code);
    return crashed ? [202, {}] : [503, { code: 'unavailable' }];
  }
}

async function answer({ method, url }) {
  const { pathname } = new URL(url, 'http://backend');
  const [, node, what] = /^\/nodes\/(\d+)\/(drain|crash)$/.exec(pathname) ?? [];
  if (method === 'POST' && pathname === '/jobs') return startJob();
  if (method === 'GET' && pathname === '/nodes') return [200, { nodes: await states() }];
  if (method === 'POST' && node) return fault(Number(node), what);
  return [404, { code: 'not_found' }];
}

const server = createServer(async (request, response) => {
  // Pages of other sites may not end our nodes.
  const origin = request.headers.origin;
  const foreign = origin !== undefined && origin.replace(/^https?:\/\//, '') !== request.headers.host;
  const [status, body] = foreign ? [403, { code: 'forbidden' }] : await answer(request);
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
});
server.listen(Number(PORT), HOST, () => console.log(`the demos' backend listens on ${server.address().port}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit(0));
void feedPrices();
if (admins.length > 0) void feedDashboard();
