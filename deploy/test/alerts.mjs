// The alert rules, the runbook and the dashboard against each other and against what a node measures: every query is PromQL
// with metrics that exist, every alert has a section that says what to do. Needs nothing that runs;
// `promtool test rules` (in deploy/test/compose.mjs, and here if there is a promtool) shows when they fire.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { check, ensure, main, same } from './harness.mjs';

const packages = createRequire(new URL('../../clients/tests/package.json', import.meta.url));
const { parser } = packages('@prometheus-io/lezer-promql');
const { parse } = packages('yaml');

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const read = (name) => readFileSync(path(name), 'utf8');
const rules = parse(read('deploy/prometheus/rules/tidewire.yml')).groups.flatMap((group) => group.rules);
const runbook = read('docs/runbook.md').split(/^## /m).slice(1)
  .map((section) => [section.slice(0, section.indexOf('\n')), section]);
// What Prometheus has of itself, and the parts of a histogram.
const known = new Set(['up']);
for (const file of ['names.rs', 'process.rs']) {
  for (const [, name] of read(`crates/tidewire/src/telemetry/${file}`).matchAll(/"((?:tidewire|process)_\w+)"/g)) {
    for (const end of ['', '_bucket', '_sum', '_count']) known.add(name + end);
  }
}

/** What is wrong with a query, and the metrics that it asks for. */
function query(text) {
  const metrics = [];
  let fault;
  parser.parse(text).iterate({
    enter(node) {
      if (node.type.isError) fault ??= text.slice(Math.max(0, node.from - 20), node.to + 20);
      if (node.name === 'VectorSelector') metrics.push(/^\w*/.exec(text.slice(node.from))[0]);
    },
  });
  return { fault, metrics };
}

function good(text, where) {
  const { fault, metrics } = query(text);
  ensure(fault === undefined, `${where}: not PromQL near '${fault}'`);
  ensure(metrics.length > 0, `${where}: it asks for nothing`);
  for (const metric of metrics) ensure(known.has(metric), `${where}: no node has ${metric}`);
}

main(async () => {
  await check('a wrong query is noticed', async () => {
    for (const wrong of ['sum by (instance (up)', 'rate(up[5m]', 'up ==', 'sum(up) > > 1']) {
      ensure(query(wrong).fault !== undefined, wrong);
    }
    same(query('sum by (le) (rate(up{a="b"}[5m])) > 1'), { metrics: ['up'] });
  });

  await check('every alert is complete, and its expression asks for metrics that exist', async () => {
    ensure(rules.length >= 20, 'alerts');
    for (const { alert, expr, labels, annotations } of rules) {
      good(String(expr), alert);
      ensure(['page', 'ticket'].includes(labels.severity), `${alert}: its severity`);
      ensure(annotations.summary && annotations.description, `${alert}: what people are told`);
    }
  });

  await check('every alert has a section in the runbook, and the other way round', async () => {
    same(runbook.map(([title]) => title).sort(), rules.map(({ alert }) => alert).sort(), 'sections');
    for (const [title, section] of runbook) {
      const { severity } = rules.find(({ alert }) => alert === title).labels;
      ensure(section.includes(`\n*${severity}.*`), `${title}: it is a ${severity}`);
      ensure(section.includes('**Look at**') && /\*\*Do\b/.test(section), `${title}: what to look at, what to do`);
    }
  });

  await check('metrics that the runbook and the operators\' page name exist', async () => {
    for (const page of ['docs/runbook.md', 'docs/operations.md']) {
      for (const [, name] of read(page).matchAll(/`((?:tidewire|process)_\w+)`/g)) ensure(known.has(name), `${page}: ${name}`);
    }
  });

  await check('every panel of the dashboard asks for metrics that exist', async () => {
    const { panels } = JSON.parse(read('deploy/grafana/dashboards/tidewire.json'));
    const queries = panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => [panel.title, expr]));
    ensure(queries.length > 20, 'queries');
    for (const [title, expr] of queries) good(expr.replaceAll('$__rate_interval', '1m').replaceAll('$node', '.*'), title);
  });

  if (spawnSync('promtool', ['--version']).status === 0) {
    await check('they fire when they should (promtool)', async () => {
      const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', path('deploy/prometheus/rules/tidewire_test.yml')]);
      same(status, 0, `${stdout}${stderr}`);
    });
  }
});
