// What a node's Prometheus metrics say, in a few numbers.

/** Adds up a metric over all its labels. */
function total(text, name) {
  let sum = 0;
  for (const [, value] of text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, 'gm'))) sum += Number(value);
  return sum;
}

/** A function that gives the node's figures of now; per second since it was called last. */
export function watch(admin) {
  let before;
  return async () => {
    try {
      const answer = await fetch(`${admin}/metrics`, { signal: AbortSignal.timeout(800) });
      const text = await answer.text();
      const now = { at: performance.now(), out: total(text, 'tidewire_messages_out_total') };
      // A node that was started again counts from the beginning.
      const rate = before && now.out >= before.out ? (now.out - before.out) / ((now.at - before.at) / 1_000) : 0;
      before = now;
      return {
        up: true,
        connections: total(text, 'tidewire_connections'),
        channels: total(text, 'tidewire_channels'),
        memory: total(text, 'process_resident_memory_bytes'),
        delivered: Math.round(rate),
      };
    } catch {
      before = undefined;
      return { up: false, connections: 0, channels: 0, memory: 0, delivered: 0 };
    }
  };
}
