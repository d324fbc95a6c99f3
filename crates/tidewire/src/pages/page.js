// Shows what arrives on a channel over WebSocket and over Server-Sent Events, side by side, and
// publishes to it. No library: what is here is all that a page needs.

const $ = (selector, root = document) => root.querySelector(selector);
const panes = { websocket: $('#websocket'), sse: $('#sse') };
const MOST_LINES = 200;

let socket;
let source;
let frame = 0;
let retry;

function show(pane, name, text, control = false) {
  const line = document.createElement('li');
  line.className = control ? 'control' : 'message';
  const bold = document.createElement('b');
  bold.textContent = name;
  line.append(bold, text);
  const log = $('.log', pane);
  log.prepend(line);
  while (log.children.length > MOST_LINES) log.lastChild.remove();
}

function state(pane, text) {
  const label = $('.state', pane);
  label.textContent = text;
  label.className = `state ${text}`;
}

function openSocket(channel) {
  clearTimeout(retry);
  socket?.close();
  const url = new URL(`v1/ws?channel=${encodeURIComponent(channel)}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  $('.code', panes.websocket).textContent = `new WebSocket('${url}')`;
  state(panes.websocket, 'connecting');
  const mine = socket = new WebSocket(url);
  mine.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === 'welcome') state(panes.websocket, 'open');
    if (message.type === 'message') show(panes.websocket, message.event, JSON.stringify(message.payload));
    else show(panes.websocket, message.type, data, true);
    if (message.type === 'ack' || message.type === 'error') answer(data, message.type === 'error');
  };
  mine.onclose = ({ code, reason }) => {
    if (mine !== socket) return;
    state(panes.websocket, 'closed');
    show(panes.websocket, 'closed', `${code} ${reason}`, true);
    // 41xx: do not come back unchanged. Everything else: come back, not all at once.
    if (code < 4100) retry = setTimeout(openSocket, 500 + Math.random() * 1500, channel);
  };
}

function openSource(channel) {
  source?.close();
  // With the envelope one handler sees every event; without it, each has a listener of its own.
  const url = new URL(`v1/sse?channel=${encodeURIComponent(channel)}&envelope=1`, location.href);
  $('.code', panes.sse).textContent = `new EventSource('${url}')`;
  state(panes.sse, 'connecting');
  const mine = source = new EventSource(url);
  const heard = new Set();
  const listen = (event, handler) => {
    if (!heard.has(event)) mine.addEventListener(event, handler);
    heard.add(event);
  };
  const message = ({ data }) => {
    const { event, payload } = JSON.parse(data);
    show(panes.sse, event, JSON.stringify(payload));
  };
  listen('message', message);
  listen($('#event').value, message);
  for (const event of ['welcome', 'gap', 'denied', 'shutdown']) {
    listen(`tidewire:${event}`, ({ data }) => {
      if (event === 'welcome') state(panes.sse, 'open');
      show(panes.sse, event, data, true);
    });
  }
  mine.onerror = () => state(panes.sse, mine.readyState === EventSource.CLOSED ? 'closed' : 'connecting');
  mine.listenTo = (event) => listen(event, message);
}

function answer(text, bad = false) {
  const output = $('#answer');
  output.textContent = text;
  output.classList.toggle('bad', bad);
}

async function publish(channel, event, payload) {
  if ($('#over').value === 'websocket') {
    if (socket.readyState !== WebSocket.OPEN) return answer('the WebSocket is not open', true);
    socket.send(JSON.stringify({ type: 'publish', id: ++frame, channel, event, payload }));
    return undefined;
  }
  const response = await fetch(`v1/channels/${encodeURIComponent(channel)}/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ event, payload }),
  });
  return answer(await response.text(), !response.ok);
}

$('#publish').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  const event = $('#event').value;
  source.listenTo(event);
  try {
    await publish($('#channel').value, event, JSON.parse($('#payload').value));
  } catch (error) {
    answer(String(error), true);
  }
});

function connect() {
  const channel = $('#channel').value;
  openSocket(channel);
  openSource(channel);
}

$('#channel').addEventListener('change', connect);
connect();
