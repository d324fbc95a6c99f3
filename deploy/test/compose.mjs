// The test of docker-compose.yml, from outside: everything goes through the published ports, as
// a user's browser would. Run by scripts/compose-test, which has started the project and says
// where it is by environment variables.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { publish, numbered, request, sse, sseOverHttp2, webSocket } from './clients.mjs';
import { theDemos } from './compose-demos.mjs';
import { check, ensure, main, same, until } from './harness.mjs';

const at = (scheme, name) => `${scheme}://127.0.0.1:${process.env[name]}`;
const plain = at('http', 'EDGE_HTTP_PORT');
const tls = at('https', 'EDGE_HTTPS_PORT');
const prometheus = at('http', 'PROMETHEUS_PORT');
const grafana = at('http', 'GRAFANA_PORT');
const gateways = ['gateway-1', 'gateway-2', 'gateway-3'];

const run = promisify(execFile);
const docker = async (...args) => (await run('docker', args)).stdout.trim();
const compose = (...args) => docker('compose', ...args);
const inside = (service, ...command) => compose('exec', '-T', service, ...command);
const idOf = (service) => compose('ps', '-aq', service);
const inspect = async (service) => JSON.parse(await docker('inspect', await idOf(service)))[0];
const welcome = (item) => item.type === 'welcome' || item.event === 'tidewire:welcome';

const query = async (expression) => {
  const answer = await request(prometheus, `/api/v1/query?query=${encodeURIComponent(expression)}`);
  return answer.json().data.result;
};

// Asks from within nginx, which is on the edge network only; the exit code of curl.
const fromTheEdge = async (url) => {
  try {
    await inside('nginx', 'curl', '-sS', '-o', '/dev/null', '--max-time', '3', url);
    return 0;
  } catch (error) {
    return error.code;
  }
};

// Twelve clients of each kind with different keys: nginx spreads them over all nodes.
async function crowd(channel) {
  const clients = [];
  for (let n = 0; n < 12; n += 1) {
    clients.push(await sse(plain, `/v1/sse?channel=${channel}&sticky=s${n}`));
    clients.push(await webSocket(plain, `/v1/ws?channel=${channel}&sticky=w${n}`));
  }
  for (const client of clients) await client.next(welcome);
  return clients;
}

/** A crowd of which a node has some: nginx leaves out for a while one that was away just now. */
async function crowdOn(node, channel) {
  return until(`${node} has clients`, async () => {
    const clients = await crowd(channel);
    const held = await until('scraped', async () => {
      const rows = await query('sum by (instance) (tidewire_connections) > 0');
      const all = rows.reduce((sum, row) => sum + Number(row.value[1]), 0);
      return all >= clients.length && rows;
    });
    if (held.some((row) => row.metric.instance === node)) return clients;
    for (const client of clients) client.close();
    return undefined;
  }, 60);
}

main(async () => {
  await theSite();
  await reachesEveryNode();
  await operators();
  await theBackplane();
  await theDemos(plain, async (node) => (await inspect(`gateway-${node}`)).RestartCount);
  await faults();
});

async function theSite() {
  await check('the page is served, plain and over TLS', async () => {
    for (const base of [plain, tls]) {
      const page = await request(base, '/');
      same([page.status, /<html/i.test(page.text)], [200, true], base);
    }
  });

  await check('nothing of the admin listener is served', async () => {
    for (const path of ['/metrics', '/healthz', '/readyz']) same((await request(plain, path)).status, 404, path);
  });

  await check('a page of the site may connect, plain and over TLS', async () => {
    for (const base of [plain, tls]) {
      const client = await webSocket(base, '/v1/ws', { Origin: base });
      await client.next(welcome);
      client.close();
    }
  });
}

async function reachesEveryNode() {
  await check('a publish through any node reaches WebSocket and SSE clients on all three', async () => {
    const clients = await crowd('news');
    await until('clients on all nodes', async () => {
      const rows = await query('sum by (instance) (tidewire_connections) > 0');
      return rows.length === 3;
    }, 20);
    for (let n = 0; n < 12; n += 1) {
      await publish(plain, 'news', { event: 'headline', payload: { n } }, `?sticky=p${n}`);
      for (const client of clients) await client.next(numbered(n));
    }
    for (const client of clients) client.close();
  }, 60);

  await check('redis-cli PUBLISH reaches all of them', async () => {
    const clients = await crowd('news');
    await inside('redis', 'redis-cli', 'PUBLISH', 'tidewire:news', '{"event":"headline","payload":{"title":"hi","n":7}}');
    for (const client of clients) {
      const item = await client.next(numbered(7));
      same(item.event, 'headline');
      client.close();
    }
  });

  await check('SSE over HTTP/2 and WebSocket over TLS', async () => {
    const stream = await sseOverHttp2(tls, '/v1/sse?channel=secure');
    same([stream.status, stream.protocol], [200, 'h2']);
    const socket = await webSocket(tls, '/v1/ws?channel=secure');
    for (const client of [stream, socket]) await client.next(welcome);
    await publish(tls, 'secure', { payload: { n: 1 } });
    for (const client of [stream, socket]) {
      await client.next(numbered(1));
      client.close();
    }
  });
}

async function operators() {
  await check('Prometheus scrapes all three nodes, under their names', async () => {
    await until('three targets up', async () => (await query('up{job="tidewire"} == 1')).length === 3, 30);
    const names = (await query('tidewire_build_info')).map((row) => row.metric.instance);
    same(names.sort(), gateways);
  }, 40);

  await check('its configuration and alert rules are good', async () => {
    await inside('prometheus', 'promtool', 'check', 'config', '/etc/prometheus/prometheus.yml');
    // It wants a folder to write to, and the volume is the only one.
    await compose('exec', '-T', '-e', 'TMPDIR=/prometheus', 'prometheus', 'promtool', 'test', 'rules',
      '/etc/prometheus/rules/tidewire_test.yml');
    const { groups } = (await request(prometheus, '/api/v1/rules')).json().data;
    const broken = groups.flatMap((group) => group.rules).filter((rule) => rule.health === 'err');
    same(broken.map((rule) => `${rule.name}: ${rule.lastError}`), []);
  });

  await check('Grafana is well, and every panel of the dashboard is a query that Prometheus takes', async () => {
    same((await request(grafana, '/api/health')).json().database, 'ok');
    const { default: board } = await import('../grafana/dashboards/tidewire.json', { with: { type: 'json' } });
    const fill = (expression) => expression.replaceAll('$__rate_interval', '1m').replaceAll('$node', '.*');
    const queries = board.panels.flatMap((panel) => panel.targets ?? []).map((target) => fill(target.expr));
    ensure(queries.length > 20, 'queries');
    for (const expression of queries) {
      const answer = await request(prometheus, `/api/v1/query?query=${encodeURIComponent(expression)}`);
      same(answer.json().status, 'success', expression);
    }
  });
}

async function theBackplane() {
  await check('the admin listener and Redis are not reachable from the edge network', async () => {
    // 6: the name is not known there; 7: refused; 28: no answer.
    for (const name of gateways) {
      same(await fromTheEdge(`http://${name}:8000/`), 0, `${name}, clients' listener`);
      same(await fromTheEdge(`http://${name}:8001/metrics`), 7, `${name}, admin listener`);
      same(await fromTheEdge(`http://${name}-admin:8001/metrics`), 6, `${name}-admin`);
    }
    same(await fromTheEdge('http://redis:6379/'), 6, 'redis');
  });

  await check('nothing runs as root, or with capabilities, or on a writable system', async () => {
    for (const service of [...gateways, 'nginx', 'redis', 'prometheus', 'demo']) {
      const about = await inspect(service);
      same(about.HostConfig.ReadonlyRootfs, true, `${service} read-only`);
      same(about.HostConfig.CapDrop, ['ALL'], `${service} capabilities`);
      ensure(!['', '0', 'root'].includes(about.Config.User), `${service} runs as root`);
    }
  });
}

async function faults() {
  await check('a node is killed: its clients land on others and get what is published', async () => {
    const clients = await crowdOn('gateway-2', 'fault');
    await docker('kill', await idOf('gateway-2'));
    const gone = () => clients.filter((client) => !client.isOpen()).length;
    await until('the killed node\'s clients are cut off', gone);
    const fresh = await crowd('fault');
    await publish(plain, 'fault', { payload: { n: 1 } });
    const kept = clients.filter((client) => client.isOpen());
    for (const client of [...kept, ...fresh]) {
      await client.next(numbered(1));
      client.close();
    }
    ensure(kept.length > 0, 'the others\' clients stay');
  }, 120);

  await check('it comes back, with another address, and gets clients again', async () => {
    const edge = `${process.env.COMPOSE_PROJECT_NAME}_edge`;
    const node = await idOf('gateway-2');
    // Another container takes its address while it is off the network.
    await docker('network', 'disconnect', edge, node);
    const helper = await docker('run', '-d', '--rm', '--network', edge, '--entrypoint', 'sleep', 'nginx:1.28', '120');
    try {
      await docker('network', 'connect', '--alias', 'gateway-2', edge, node);
      await docker('start', node);
      await until('healthy', async () => (await inspect('gateway-2')).State.Health.Status === 'healthy', 40);
      for (const client of await crowdOn('gateway-2', 'back')) client.close();
    } finally {
      await docker('rm', '-f', helper);
    }
  }, 120);

  await check('a node that is stopped drains within its time: its clients are told, exit 0', async () => {
    const clients = await crowd('stop');
    await compose('stop', 'gateway-3');
    same((await inspect('gateway-3')).State.ExitCode, 0, 'exit code');
    const told = await until('its clients are gone', () => clients.filter((client) => !client.isOpen()).length);
    ensure(told < clients.length, 'the others\' clients stay');
    for (const client of clients) client.close();
  }, 60);
}
