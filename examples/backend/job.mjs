// A job that tells how far it is. Any language with a Redis client does it like this:
//
//     node job.mjs my-job                 (REDIS_URL, by default redis://127.0.0.1:6379)

import { setTimeout as sleep } from 'node:timers/promises';
import { redis } from './redis.mjs';

const STEPS = ['reading', 'sorting', 'comparing', 'writing', 'done'];

/** Runs the job; `run` runs a command of Redis. */
export async function job(run, id, pace = 150) {
  for (let percent = 0; percent <= 100; percent += 2) {
    const payload = { percent, step: STEPS[Math.floor(percent / 25)] };
    const body = JSON.stringify({ event: 'progress', payload });
    await run('FCALL', 'tidewire_publish', 1, `tidewire:job:${id}`, body);
    await sleep(pace);
  }
}

if (process.argv[1] === import.meta.filename) {
  const { run, close } = await redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379');
  await job(run, process.argv[2] ?? 'my-job');
  close();
}
