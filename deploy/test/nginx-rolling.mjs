// A rolling restart of three nodes behind nginx, under load: each is told to stop and started
// again, while publishers repeat what was not acknowledged and readers of every kind resume through
// nginx. Everybody must have everything, in order, once, and no gap is told.

import { setTimeout as sleep } from 'node:timers/promises';
import { request, sse, webSocket } from './clients.mjs';
import { metric, startNode, startNodes, startRedis } from './cluster.mjs';
import { check, ensure, same, until } from './harness.mjs';
import { startNginx } from './nginx-process.mjs';

const CONFIG = '[drain]\ntime = "4s"\n[namespaces.roll]\nhistory_size = 10000\n';
const CHANNELS = ['roll:0', 'roll:1', 'roll:2', 'roll:3'];
const PUBLISHERS = 6;
// Of each kind: a WebSocket, an event stream, a poll.
const READERS = 15;
// The mean time between a publisher's messages, in ms.
const PACE = 30;
// What a client waits after a refusal, in ms; a real one would wait longer.
const AGAIN = 50;

/** A client of two channels that comes back until it is told to stop. */
class Reader {
  /** By channel: the ids of what arrived. */
  got;
  places = {};
  sessions = 0;
  /** Gaps, and answers that should not be. */
  faults = [];
  /** Told by the node to go. */
  told = 0;
  over = false;

  constructor(base, number) {
    this.base = base;
    this.channels = [CHANNELS[number % 4], CHANNELS[(number + 1 + (number % 3)) % 4]];
    // Behind one address nginx would send all to one node.
    this.sticky = `${this.constructor.name}${number}`;
    this.got = Object.fromEntries(this.channels.map((name) => [name, []]));
    this.done = this.#run();
  }

  async #run() {
    while (!this.over) {
      // Whatever ended it, it comes back.
      await this.session().catch(() => {});
      if (!this.over) await sleep(AGAIN);
    }
  }

  message(frame) {
    this.places[frame.channel] = frame.cursor;
    this.got[frame.channel].push(frame.messageId);
  }

  query(more = '') {
    return `sticky=${this.sticky}${more}`;
  }
}

class SocketReader extends Reader {
  async session() {
    const places = this.channels.map((name) => {
      const cursor = this.places[name];
      return `&channel=${name}${cursor ? `&cursor=${cursor}` : ''}`;
    });
    const socket = await webSocket(this.base, `/v1/ws?${this.query(places.join(''))}`);
    this.stop = () => socket.close();
    for (;;) {
      const frame = await socket.next(undefined, 40);
      if (frame.type === 'message') this.message(frame);
      if (frame.type === 'gap') this.faults.push(frame);
      if (frame.type === 'shutdown') this.told += 1;
      if (frame.type === 'welcome') {
        this.sessions += 1;
        for (const { channel, cursor } of frame.channels) this.places[channel] = cursor;
      }
    }
  }
}

class StreamReader extends Reader {
  async session() {
    const path = `/v1/sse?envelope=1&${this.query(this.channels.map((name) => `&channel=${name}`).join(''))}`;
    const stream = await sse(this.base, path, this.id ? { 'Last-Event-ID': this.id } : {});
    // Another one would end an EventSource for ever.
    if (stream.status !== 200) this.faults.push(`status ${stream.status}`);
    this.stop = () => stream.close();
    try {
      for (;;) this.#event(await stream.next(undefined, 40));
    } finally {
      stream.close();
      await sleep(this.retry ?? 0);
    }
  }

  #event({ event, data, id, retry }) {
    if (retry) this.retry = Number(retry);
    if (id !== undefined) this.id = id;
    if (event === 'tidewire:welcome') this.sessions += 1;
    else if (event === 'tidewire:gap') this.faults.push(data);
    else if (event === 'tidewire:shutdown') this.told += 1;
    else if (data !== undefined) this.message(JSON.parse(data));
  }
}

class PollReader extends Reader {
  async session() {
    const cursor = this.cursor ? `&cursor=${this.cursor}` : '';
    const channels = this.channels.map((name) => `&channel=${name}`).join('');
    const answer = await request(this.base, `/v1/poll?wait=5&${this.query(channels + cursor)}`);
    if (answer.status !== 200) throw new Error(answer.text);
    const body = answer.json();
    this.sessions += 1;
    this.cursor = body.cursor;
    body.messages.forEach((message) => this.message(message));
    this.faults.push(...(body.gaps ?? []));
  }
}

/** Publishes until told to stop, each message until it is acknowledged; what was, with its place. */
async function publisher(base, number, state) {
  for (let n = 0; !state.over; n += 1) {
    const channel = CHANNELS[(number + n) % 4];
    const messageId = `${number}-${n}`;
    const body = JSON.stringify({ payload: { n }, messageId });
    const headers = { 'content-type': 'application/json' };
    const acks = [];
    // At times it is sent again all the same, as if the answer had been lost.
    for (let left = n % 10 === 0 ? 2 : 1; left > 0;) {
      // Each attempt may go to another node.
      const path = `/v1/channels/${channel}/messages?sticky=${Math.random()}`;
      const answer = await request(base, path, { method: 'POST', headers, body }).catch((error) => ({ error }));
      if (answer.status === 200) {
        acks.push(answer.json().cursor);
        left -= 1;
      } else {
        state.refused += 1;
        ensure(answer.error || answer.status >= 500, `${answer.status} ${answer.text}`);
        await sleep(AGAIN);
      }
    }
    same(new Set(acks).size, 1, `places of ${messageId}`);
    state.acked[channel].push([acks[0], messageId]);
    state.repeated += acks.length - 1;
    await sleep(Math.random() * 2 * PACE);
  }
}

// `<ms>-<seq>.<tag>` as a pair of numbers.
const order = ([a], [b]) => {
  const [one, two] = [a, b].map((cursor) => cursor.split('.')[0].split('-').map(Number));
  return one[0] - two[0] || one[1] - two[1];
};

async function restart(redis, node) {
  node.child.kill('SIGTERM');
  await node.child.ended;
  same(node.child.exitCode, 0, 'exit code');
  const fresh = await startNode(redis, node.ports, CONFIG);
  // Until nginx counts on it again: the next one may go only then.
  await until('publishes come to the node', async () => await metric(fresh, 'tidewire_messages_in_total') > 0, 30);
  return fresh;
}

export async function rolling() {
  await check('a rolling restart of three nodes under load: nothing lost, nothing twice, no gap', async () => {
    const redis = await startRedis();
    const all = await startNodes(redis, 3, CONFIG);
    const nginx = await startNginx(all.map((node) => node.port));
    const readers = [SocketReader, StreamReader, PollReader].flatMap((Kind) =>
      Array.from({ length: READERS }, (_, n) => new Kind(nginx.plain, n)));
    await until('all readers are there', () => readers.every((reader) => reader.sessions > 0));

    const state = { over: false, refused: 0, repeated: 0, acked: Object.fromEntries(CHANNELS.map((name) => [name, []])) };
    const publishing = Promise.all(Array.from({ length: PUBLISHERS }, (_, n) => publisher(nginx.plain, n, state)));
    // It is looked at in the end, and may fail before.
    publishing.catch(() => {});
    for (const [n, node] of all.entries()) all[n] = await restart(redis, node);
    state.over = true;
    await publishing;

    const expected = Object.fromEntries(CHANNELS.map((name) =>
      [name, state.acked[name].sort(order).map(([, messageId]) => messageId)]));
    const missing = () => readers.filter((reader) =>
      reader.channels.some((name) => reader.got[name].length < expected[name].length));
    await until('everybody has as much as was acknowledged', () => missing().length === 0).catch(() => {});
    for (const reader of readers) {
      reader.over = true;
      reader.stop?.();
    }
    for (const reader of readers) {
      same(reader.faults, [], `gaps and faults of ${reader.sticky}`);
      for (const name of reader.channels) compare(reader.got[name], expected[name], `${reader.sticky} on ${name}`);
    }
    for (const Kind of [SocketReader, StreamReader]) {
      const kind = readers.filter((reader) => reader instanceof Kind);
      ensure(kind.every((reader) => reader.told > 0 && reader.sessions > 1), `each ${Kind.name} was sent away and came back`);
    }
    const count = (what) => readers.reduce((sum, reader) => sum + what(reader), 0);
    const delivered = count((reader) => reader.channels.reduce((sum, name) => sum + reader.got[name].length, 0));
    const published = CHANNELS.reduce((sum, name) => sum + expected[name].length, 0);
    console.log(`        ${published} messages published, ${state.repeated} of them twice, ${state.refused} attempts`
      + ` failed, ${delivered} deliveries to ${readers.length} readers, ${count((reader) => reader.told)} times sent away`);
  }, 150);
}

/** The first difference, if there is one. */
function compare(actual, expected, who) {
  const at = expected.findIndex((id, n) => actual[n] !== id);
  if (at >= 0 || actual.length !== expected.length) {
    const from = at >= 0 ? at : expected.length;
    throw new Error(`${who}: of ${expected.length} messages it has ${actual.length}; from ${from} on it has`
      + ` ${JSON.stringify(actual.slice(from, from + 5))}, expected ${JSON.stringify(expected.slice(from, from + 5))}`);
  }
}
