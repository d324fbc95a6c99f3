// Numbered messages out and in again. A number that is acknowledged and does not arrive is missing.

import { $, NAMES, element, open } from './lib/demo.js';

const MOST_LINES = 12;
const tw = open();
// A channel of one's own, so that each window counts its own.
const numbers = tw.channel(`break:${crypto.getRandomValues(new Uint32Array(2)).join('-')}`);
const acked = new Set();
const received = new Set();
let sent = 0;
let twice = 0;
let gaps = 0;
let timer;

function show() {
  const missing = [...acked].filter((n) => !received.has(n)).length;
  $('#sent').textContent = sent;
  $('#acked').textContent = acked.size;
  $('#received').textContent = received.size;
  // What was acknowledged a moment ago may still be under way; what stays is missing.
  for (const [id, value] of [['#missing', missing], ['#twice', twice], ['#gaps', gaps]]) {
    $(id).textContent = value;
    $(id).className = `figure ${value > 0 ? 'bad' : 'good'}`;
  }
}

numbers.on('number', (n) => {
  if (received.has(n)) twice += 1;
  received.add(n);
});
numbers.on('gap', () => { gaps += 1; });
setInterval(show, 250);

function publish() {
  const n = sent;
  sent += 1;
  // As long as the longest of faults: until then it is sent again with the same id.
  numbers.publish('number', n, { timeout: 120_000 }).then(() => acked.add(n), (error) => note(`${n}: ${error.code}`));
}

$('#run').addEventListener('click', () => {
  clearInterval(timer);
  timer = timer ? undefined : setInterval(publish, 1_000 / Number($('#rate').value));
  $('#run').textContent = timer ? 'Stop' : 'Start';
});

// --- What happens to the connection ---

function note(text) {
  $('#log').prepend(element('li', {}, element('span', { className: 'quiet', textContent: new Date().toLocaleTimeString() }), ` ${text}`));
  while ($('#log').children.length > MOST_LINES) $('#log').lastChild.remove();
}

const WHY = {
  network: 'the line broke', shutdown: 'the node stops', timeout: 'no sign of life', 1012: 'the node stops', upgrade: 'a better way',
  frozen: 'the page was put away', online: 'the network is back', unavailable: 'the node is not ready',
};

tw.on('state', ({ status, transport, reason }) => {
  const what = { connecting: `connects over ${NAMES[transport]}`, open: `connected over ${NAMES[transport]}`, waiting: 'waits a moment', closed: 'closed' }[status];
  note(status === 'open' || !reason ? what : `${what}: ${WHY[reason.code] ?? reason.code}`);
});

// --- The nodes, by the demo's backend ---

async function fault(node, what) {
  const answer = await fetch(`api/nodes/${node}/${what}`, { method: 'POST' });
  const done = { drain: 'is told to leave', crash: 'is crashed' }[what];
  note(answer.ok ? `node ${node} ${done}` : `node ${node}: ${answer.status}`);
}

async function showNodes() {
  try {
    const answer = await fetch('api/nodes');
    if (!answer.ok) throw new Error(`${answer.status}`);
    const { nodes } = await answer.json();
    $('#fault').textContent = 'A drained node sends its clients away and ends; a crashed one is gone at once. Its supervisor starts either again.';
    $('#nodes').replaceChildren(...nodes.map(({ node, state, connections }) => {
      const buttons = ['Drain', 'Crash'].map((name) => {
        const button = element('button', { className: 'danger', textContent: name, disabled: state !== 'ready' });
        button.addEventListener('click', () => fault(node, name.toLowerCase()));
        return button;
      });
      const tag = element('span', { className: `tag ${state === 'ready' ? 'good' : 'warn'}`, textContent: state });
      const count = element('span', { className: 'small quiet', textContent: state === 'down' ? '' : `${connections} ${connections === 1 ? 'connection' : 'connections'}` });
      return element('li', { className: 'row' }, element('span', { className: 'grow', textContent: `Node ${node}` }), count, tag, ...buttons);
    }));
  } catch {
    $('#fault').textContent = 'The demo backend is not there; stop and start nodes by hand.';
  }
  setTimeout(showNodes, 1_000);
}
showNodes();
