// What the tests of nginx and compose share: named checks with a time-out each and a count at
// the end, processes that end with the test, and the things that are waited for.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

let passed = 0;
let failed = 0;
const cleanups = [];

/** Runs one check; a failure is shown and counted, and the next one runs. */
export async function check(name, body, seconds = 30) {
  const started = Date.now();
  const bound = new AbortController();
  try {
    await Promise.race([
      body(),
      sleep(seconds * 1000, undefined, { signal: bound.signal }).then(() => {
        throw new Error(`not done after ${seconds} s`);
      }),
    ]);
    passed += 1;
    console.log(`ok      ${name} (${Date.now() - started} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${String(error.stack ?? error).replaceAll('\n', '\n        ')}`);
  } finally {
    bound.abort();
  }
}

/** Called at the end, last registered first, whatever happened. */
export function atEnd(cleanup) {
  cleanups.push(cleanup);
}

/** Runs the whole test, cleans up, prints the count and ends the process. */
export async function main(body) {
  const finish = async (code) => {
    for (const cleanup of cleanups.splice(0).reverse()) {
      await Promise.resolve(cleanup()).catch((error) => console.log(`clean-up: ${error.message}`));
    }
    process.exit(code);
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => finish(130));
  try {
    await body();
  } catch (error) {
    failed += 1;
    console.log(`FAILED  the test could not go on\n        ${error.stack ?? error}`);
  }
  console.log(`${passed} passed, ${failed} failed`);
  await finish(failed === 0 ? 0 : 1);
}

/** Throws with both values unless they are the same. */
export function same(actual, expected, what = 'value') {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: ${a}, expected ${b}`);
}

/** Throws unless the condition holds. */
export function ensure(condition, what) {
  if (!condition) throw new Error(what);
}

/** Asks again and again until the answer is neither false nor an error; returns the answer. */
export async function until(what, ask, seconds = 15) {
  const end = Date.now() + seconds * 1000;
  let last = 'no';
  while (Date.now() < end) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error.message;
    }
    await sleep(25);
  }
  throw new Error(`${what}: not within ${seconds} s (last: ${last})`);
}

/** A child process that ends with the test, by this signal; its output is kept for failures. */
export function start(command, args, { lastSignal = 'SIGKILL' } = {}) {
  // A node takes every variable that begins with TIDEWIRE_ for a setting; tests set none.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDEWIRE_')));
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  child.output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      child.output = (child.output + data).slice(-200_000);
    });
  }
  child.ended = once(child, 'exit');
  child.on('error', (error) => {
    child.output += `${command}: ${error.message}`;
  });
  atEnd(() => stop(child, lastSignal));
  return child;
}

/** Sends the signal, if the process still runs, and waits for its end. */
export async function stop(child, signal = 'SIGTERM') {
  if (child.exitCode === null && child.signalCode === null && child.pid) {
    child.kill(signal);
    await child.ended;
  }
}
