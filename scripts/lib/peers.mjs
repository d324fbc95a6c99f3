// Other servers with the least code that fans a message out: `ws` and Socket.IO, one process each.
// Started by scripts/bench --peers with the folder that has their packages.
//
//   node peers.mjs ws|socket.io FOLDER
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [kind, folder] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const channelOf = request => new URL(request.url, 'http://localhost').searchParams.get('channel') ?? '';

let publish;
const server = createServer((request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    publish(channelOf(request), Buffer.concat(parts).toString());
    response.setHeader('content-length', 2);
    response.end('{}');
  });
});

if (kind === 'ws') {
  const { WebSocketServer } = require('ws');
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  const channels = new Map();
  sockets.on('connection', (socket, request) => {
    const channel = channelOf(request);
    if (!channels.has(channel)) channels.set(channel, new Set());
    channels.get(channel).add(socket);
    socket.on('close', () => channels.get(channel).delete(socket));
    socket.send('welcome');
  });
  publish = (channel, body) => {
    for (const socket of channels.get(channel) ?? []) socket.send(body);
  };
} else {
  const { Server } = require('socket.io');
  const io = new Server(server, { transports: ['websocket'], serveClient: false });
  io.on('connection', socket => {
    socket.join(socket.handshake.query.channel ?? '');
    socket.emit('welcome');
  });
  publish = (channel, body) => io.to(channel).emit('message', body);
}

server.keepAliveTimeout = 0;
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
