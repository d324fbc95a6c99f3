// The demos as docker-compose.yml serves them: their pages, what their backend publishes, and the panel that drains and
// crashes nodes while numbered messages go on. (That the pages do their job in a browser is clients/js' to test.)

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { check, ensure, same, until } from './harness.mjs';

const packages = createRequire(new URL('../../clients/tests/package.json', import.meta.url));
const { WebSocket } = packages('ws');
const bundle = readFileSync(new URL('../../examples/lib/tidewire.js', import.meta.url), 'utf8');
/** The client library, as the pages load it. */
const { connect } = await import(`data:text/javascript,${encodeURIComponent(bundle)}`);

/** Checks them at `site`; `restarts(node)` tells how often Docker has started a node again. */
export async function theDemos(site, restarts) {
  const url = (path) => `${site}/demo/${path}`;
  /** A client that nginx sends to a node by its key, as it does a browser by its cookie. */
  const client = (key) => connect(site, {
    backoff: { base: 100, cap: 1_000 },
    WebSocket: class extends WebSocket {
      constructor(address) {
        super(address, { headers: { cookie: `tidewire_sticky=${key}` } });
      }
    },
  });

  await check('the index of the demos is served, and every page and source that it names', async () => {
    const page = await fetch(url(''));
    const text = await page.text();
    same([page.status, /<h1>Tidewire demos/.test(text)], [200, true]);
    const names = [...text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, name]) => name);
    ensure(names.length > 15, 'links');
    for (const name of names) same((await fetch(url(name))).status, 200, name);
  });

  await check('their backend publishes: prices, the cluster\'s metrics, a job from its start to its end', async () => {
    const tw = client('job');
    try {
      const heard = new Map();
      const follow = (channel) => {
        heard.set(channel, []);
        tw.channel(channel, { rewind: 1 }).on('*', (payload) => heard.get(channel).push(payload));
      };
      for (const channel of ['prices:tide', 'metrics:cluster']) follow(channel);
      const started = await fetch(url('api/jobs'), { method: 'POST' });
      same(started.status, 202);
      const job = `job:${(await started.json()).id}`;
      follow(job);
      await until('prices', () => heard.get('prices:tide').length > 10);
      await until('all nodes', () => heard.get('metrics:cluster').some(({ nodes }) => nodes.length === 3 && nodes.every(({ up }) => up)));
      await until('the end of the job', () => heard.get(job).some(({ percent }) => percent === 100), 40);
    } finally {
      tw.close();
    }
  }, 60);

  for (const [node, what] of [[1, 'crash'], [2, 'drain'], [3, 'crash']]) {
    await check(`the panel: ${what} of node ${node}; it comes back, and no message is missing or comes twice`, async () => {
      const before = await restarts(node);
      const clients = Array.from({ length: 12 }, (_, n) => client(`window-${n}`));
      let broken = 0;
      try {
        const [sender, ...others] = clients.map((tw) => tw.channel(`compose:${node}`));
        const seen = [sender, ...others].map((channel) => {
          const numbers = [];
          channel.on('number', (n) => numbers.push(n));
          channel.on('gap', () => numbers.push('gap'));
          return numbers;
        });
        await until('all subscribed', () => [sender, ...others].every(({ cursor }) => cursor));
        for (const tw of clients) tw.on('state', ({ status }) => { broken += status === 'open' ? 0 : 1; });
        const acks = [];
        const timer = setInterval(() => acks.push(sender.publish('number', acks.length, { timeout: 60_000 })), 20);
        try {
          await until('messages', () => seen.every((numbers) => numbers.length > 20));
          same((await fetch(url(`api/nodes/${node}/${what}`), { method: 'POST' })).status, 202);
          await until('Docker starts it again', async () => await restarts(node) > before, 40);
          await until('it is ready', async () => {
            const { nodes } = await (await fetch(url('api/nodes'))).json();
            return nodes.find((one) => one.node === node).state === 'ready';
          }, 40);
        } finally {
          clearInterval(timer);
        }
        ensure(broken > 0, 'nobody was connected to it');
        await Promise.all(acks);
        const all = acks.map((_, n) => n);
        for (const numbers of seen) {
          await until('the last message', () => numbers.length >= all.length);
          same(numbers.toSorted((a, b) => a - b), all, 'numbers');
        }
      } finally {
        for (const tw of clients) tw.close();
      }
    }, 120);
  }

  await check('pages of other sites cannot do that', async () => {
    const answer = await fetch(url('api/nodes/1/crash'), { method: 'POST', headers: { origin: 'https://evil.example' } });
    same(answer.status, 403);
  });
}
