// The PyPI package `websockets` as a client; the checks are in python/client.py.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sharedNode } from './lib/node.mjs';
import { Process } from './lib/process.mjs';
import { python } from './lib/python.mjs';

const node = sharedNode();
const compressing = sharedNode({ env: { TIDEWIRE_COMPRESSION__WEBSOCKET: 'true' } });
const script = fileURLToPath(new URL('python/client.py', import.meta.url));
const interpreter = python();

const checks = execFileSync(interpreter, [script, '--list'], { encoding: 'utf8' }).trim().split('\n');
for (const line of checks) {
  const [name] = line.split(':');
  test(`websockets: ${line}`, async (t) => {
    const { ws } = name === 'compressed' ? compressing : node;
    const client = new Process(interpreter, [script, name, ws]);
    t.after(() => client.kill());
    const { code } = await client.ended(40_000);
    assert.equal(code, 0, client.output);
  });
}
