// Shows what arrives on a channel over WebSocket and over Server-Sent Events, side by side, and
// publishes to it. No library: what is here is all that a page needs.

const $ = (selector, root = document) => root.querySelector(selector);
const field = (id) => $(`#${id}`).value;
const panes = { websocket: $('#websocket'), sse: $('#sse') };
const MOST_LINES = 200;

let socket;
let source;
let frames = 0;
const retries = {};

// --- What is shown ---

/** Adds a line on top; `kind` is message, control or fault. */
function show(pane, kind, name, text) {
  const line = document.createElement('li');
  line.className = kind;
  const time = document.createElement('time');
  time.textContent = new Date().toTimeString().slice(0, 8);
  const bold = document.createElement('b');
  bold.textContent = name;
  line.append(time, bold, text);
  const log = $('.log', pane);
  log.prepend(line);
  while (log.children.length > MOST_LINES) log.lastChild.remove();
}

/** Shows a control frame or event: its fields as `name value`. */
function showControl(pane, name, fields) {
  const words = Object.entries(fields).filter(([key]) => key !== 'type')
    .map(([key, value]) => `${key} ${typeof value === 'object' ? JSON.stringify(value) : value}`);
  show(pane, name === 'error' ? 'fault' : 'control', name, words.join(', '));
}

function state(pane, text) {
  const label = $('.state', pane);
  label.textContent = text;
  label.className = `state ${text}`;
}

function answer(text, bad = false) {
  const output = $('#answer');
  output.textContent = text;
  output.classList.toggle('bad', bad);
}

// --- Connecting ---

/** Where a stream of the channel is; `token` is what an EventSource logs in with, which sets no headers. */
function address(path, channel, token = '') {
  const url = new URL(`v1/${path}?channel=${encodeURIComponent(channel)}`, location.href);
  if (token) url.searchParams.set('token', token);
  return url;
}

/** What the examples show in the token's place: they are read over shoulders, and copied. */
const shown = (token) => (token ? 'TOKEN' : '');

/** Why a stream was refused; nothing when it was not, or may not be the next time. */
async function refusal(channel) {
  // Neither WebSocket nor EventSource tells a page what the answer was. A plain request does.
  const request = new AbortController();
  try {
    const response = await fetch(address('sse', channel, field('token')), { signal: request.signal });
    if (response.status < 400 || response.status >= 500) return undefined;
    const problem = await response.json();
    return `${problem.code}: ${problem.detail}`;
  } catch {
    return undefined;
  } finally {
    request.abort();
  }
}

/** After a failure: says why if that will not pass, else comes back, but not with all the others. */
async function comeBack(pane, isCurrent, reopen, channel) {
  state(pane, 'closed');
  const why = await refusal(channel);
  if (!isCurrent()) return;
  if (why) show(pane, 'fault', 'refused', why);
  else retries[pane.id] = setTimeout(reopen, 500 + Math.random() * 1500, channel);
}

function openSocket(channel) {
  const pane = panes.websocket;
  clearTimeout(retries[pane.id]);
  socket?.close();
  const url = address('ws', channel);
  url.protocol = url.protocol.replace('http', 'ws');
  const token = field('token');
  const login = token && `
socket.onopen = () => socket.send(JSON.stringify({ type: 'auth', token: '${shown(token)}' }));`;
  $('.code', pane).textContent = `const socket = new WebSocket('${url}');${login}
socket.onmessage = ({ data }) => console.log(data);`;
  state(pane, 'connecting');
  const mine = socket = new WebSocket(url);
  // Not in the address, which may end up in logs.
  mine.onopen = () => token && mine.send(JSON.stringify({ type: 'auth', token }));
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    const frame = JSON.parse(data);
    if (frame.type === 'welcome') state(pane, 'open');
    if (frame.id && (frame.type === 'ack' || frame.type === 'error')) answer(data, frame.type === 'error');
    if (frame.type !== 'message') return showControl(pane, frame.type, frame);
    show(pane, 'message', frame.event, JSON.stringify(frame.payload));
    // The other pane cannot hear an event whose name it does not know; now it is known.
    source.listenTo(frame.event);
  };
  mine.onclose = ({ code, reason }) => {
    if (mine !== socket) return;
    show(pane, 'control', 'closed', `${code} ${reason}`);
    // 41xx: do not come back unchanged.
    if (code >= 4100) state(pane, 'closed');
    else comeBack(pane, () => mine === socket, openSocket, channel);
  };
}

function openSource(channel) {
  const pane = panes.sse;
  clearTimeout(retries[pane.id]);
  source?.close();
  const token = field('token');
  const url = address('sse', channel, shown(token));
  state(pane, 'connecting');
  const mine = source = new EventSource(address('sse', channel, token));
  const showMessage = (event) => {
    // EventSource has events of its own named `open` and `error`, which carry nothing.
    if (event.data !== undefined) show(pane, 'message', event.type, event.data);
  };
  const heard = new Set();
  mine.listenTo = (name) => {
    if (heard.has(name) || name === '') return;
    heard.add(name);
    mine.addEventListener(name, showMessage);
    $('.code', pane).textContent = `const source = new EventSource('${url}');
for (const name of ${JSON.stringify([...heard])})
  source.addEventListener(name, ({ data }) => console.log(data));`;
  };
  mine.listenTo('message');
  mine.listenTo(field('event'));
  for (const name of ['welcome', 'gap', 'denied', 'shutdown']) {
    mine.addEventListener(`tidewire:${name}`, ({ data }) => {
      if (name === 'welcome') state(pane, 'open');
      showControl(pane, name, JSON.parse(data));
    });
  }
  // It comes back by itself, unless the answer was an error.
  mine.onerror = () => {
    if (mine !== source) return;
    if (mine.readyState !== EventSource.CLOSED) state(pane, 'connecting');
    else comeBack(pane, () => mine === source, openSource, channel);
  };
}

function connect() {
  const channel = field('channel');
  openSocket(channel);
  openSource(channel);
}

// --- Publishing ---

function publishOverSocket(message) {
  if (socket.readyState !== WebSocket.OPEN) return answer('The WebSocket is not open.', true);
  return socket.send(JSON.stringify({ type: 'publish', id: ++frames, channel: field('channel'), ...message }));
}

function path() {
  return `v1/channels/${encodeURIComponent(field('channel'))}/messages`;
}

async function publishOverHttp(message) {
  const headers = { 'content-type': 'application/json' };
  if (field('token')) headers.authorization = `Bearer ${field('token')}`;
  try {
    const response = await fetch(path(), { method: 'POST', headers, body: JSON.stringify(message) });
    answer(await response.text(), !response.ok);
  } catch {
    answer('No answer: the node cannot be reached.', true);
  }
}

function publish(submitted) {
  submitted.preventDefault();
  let payload;
  try {
    payload = JSON.parse(field('payload'));
  } catch (error) {
    return answer(`The payload is not JSON: ${error.message}`, true);
  }
  answer('');
  const message = { event: field('event'), payload };
  return field('over') === 'http' ? publishOverHttp(message) : publishOverSocket(message);
}

function showShell() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const body = `{"event":${JSON.stringify(field('event'))},"payload":${field('payload')}}`;
  const token = shown(field('token'));
  const login = token && `-H 'authorization: Bearer ${token}' `;
  $('#shell').textContent = `curl -d ${quoted(body)} -H 'content-type: application/json' ${login}\\
  ${quoted(new URL(path(), location.href).href)}`;
}

$('#publish').addEventListener('submit', publish);
$('#publish').addEventListener('input', showShell);
$('#channel').addEventListener('change', connect);
$('#token').addEventListener('change', connect);
$('#event').addEventListener('change', () => source.listenTo(field('event')));
showShell();
connect();
