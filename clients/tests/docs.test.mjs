// The code in docs/getting-started.md and docs/recipes.md, run section by section.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import WebSocket from 'ws';
import { startNode } from './lib/node.mjs';
import { Process } from './lib/process.mjs';
import { freePort } from './lib/ports.mjs';
import { startRedis } from './lib/redis.mjs';
import { lacks, makeFolder, prepare, sections } from './lib/snippets.mjs';
import { until } from './lib/wait.mjs';

/** What a subscriber of `news` gets. */
async function listen(t, node) {
  const heard = [];
  const socket = new WebSocket(`${node.ws}/v1/ws?channel=news`);
  t.after(() => socket.terminate());
  socket.on('message', (text) => heard.push(String(text)));
  await until('the welcome', () => heard.length > 0);
  return heard;
}

/** Sessions and parked polls of the node. */
async function subscriptions(node) {
  return (await node.metric('tidewire_subscriptions')) ?? 0;
}

async function start(t, snippet, folder, world) {
  const { command, args, cwd, path } = prepare(snippet, folder, world);
  const before = await subscriptions(world.node);
  const running = new Process(command, args, { PATH: path }, cwd);
  t.after(() => running.kill());
  if (snippet.listens) {
    await running.answers(`${snippet.name} listens`, () => running.output.includes('listens'));
  } else if (snippet.stays) {
    await running.answers(`${snippet.name} subscribes`, async () => await subscriptions(world.node) > before);
  } else {
    const { code } = await running.ended(60_000);
    assert.equal(code, 0, `${snippet.name}:\n${running.output}`);
  }
  return running;
}

for (const page of ['getting-started.md', 'recipes.md']) {
  for (const { title, config, snippets } of sections(page)) {
    test(`${page}: ${title}`, async (t) => {
      const { folder, remove } = makeFolder();
      t.after(remove);
      const redis = await startRedis(t);
      const port = await freePort();
      writeFileSync(join(folder, 'tidewire.toml'), config.replaceAll('127.0.0.1:3000', `127.0.0.1:${port}`));
      const flags = ['--config', join(folder, 'tidewire.toml'), '--redis', redis.url];
      // As it comes, without what the other tests set.
      const node = await startNode(t, { flags, env: { TIDEWIRE_NAMESPACES__DEFAULT__HISTORY_SIZE: '100' } });
      const world = { node, redis, port };
      const heard = snippets.some(({ delivers }) => delivers) ? await listen(t, node) : [];
      const started = [];
      for (const snippet of snippets) {
        const missing = lacks(snippet);
        if (missing) {
          t.diagnostic(`${snippet.name} is not run: ${missing}`);
          continue;
        }
        started.push([snippet, await start(t, snippet, folder, world)]);
        if (snippet.delivers) {
          await until(`${snippet.name}: delivered`, () => heard.some((text) => text.includes(snippet.delivers)));
        }
      }
      for (const [snippet, running] of started) {
        if (!snippet.prints) continue;
        await until(`${snippet.name} prints ${snippet.prints}, not:\n${running.output}`, () => running.output.includes(snippet.prints));
      }
    });
  }
}
