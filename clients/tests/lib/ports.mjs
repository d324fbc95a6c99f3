// Ports for servers that cannot tell which one the system chose.

import { createServer } from 'node:net';

function listen(...where) {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(undefined));
    server.listen(...where, () => resolve(server));
  });
}

/**
 * A port on loopback that is free now, below the range of outgoing connections, and that nobody else is given as long
 * as this process lives: until its server binds it, an abstract socket (unix(7)) stands for it, as in
 * crates/testkit/src/ports.rs.
 */
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const free = await listen(port, '127.0.0.1');
    if (!free) continue;
    await new Promise((resolve) => free.close(resolve));
    const taken = await listen(`\0tidewire-test-port-${port}`);
    if (!taken) continue;
    taken.unref();
    return port;
  }
}
