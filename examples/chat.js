// Chat: messages on a stored channel, typing on a live one.

import { $, cuttableLine, element, nickname, open, time } from './lib/demo.js';

const line = cuttableLine();
const tw = open(line.options);
const lobby = tw.channel('chat:lobby', { rewind: 30 });
const typing = tw.channel('live:typing:lobby');
const typists = new Map();
let mendedAt = 0;
let caughtUp = 0;

$('#name').value = nickname();
$('#name').addEventListener('change', () => sessionStorage.setItem('name', $('#name').value));

// --- Messages ---

/** Adds a message, or completes the one that was shown when it was sent. */
function show({ name, text }, { messageId, timestamp }, tag) {
  const known = document.getElementById(messageId);
  const item = known ?? element('li', { id: messageId });
  item.replaceChildren(
    element('b', { textContent: name }), ' ',
    element('span', { className: 'small quiet', textContent: time(timestamp) }), ' ',
    element('span', { className: `tag ${tag.kind}`, textContent: tag.text }),
    element('div', { textContent: text }),
  );
  // Those that still wait stand below what has arrived.
  const waiting = $('#messages').querySelector('.waiting');
  item.classList.toggle('waiting', tag.kind === 'warn');
  if (tag.kind === 'warn') $('#messages').append(item);
  else $('#messages').insertBefore(item, waiting === item ? item.nextSibling : waiting);
  item.scrollIntoView({ block: 'nearest' });
}

lobby.on('said', (payload, message) => {
  const late = Date.parse(message.timestamp) < mendedAt && !document.getElementById(message.messageId);
  if (late) {
    caughtUp += 1;
    $('#caught').textContent = `${caughtUp} caught up`;
  }
  show(payload, message, late ? { kind: 'good', text: 'caught up' } : { kind: '', text: 'stored' });
  typists.delete(payload.name);
  showTyping();
});
lobby.on('gap', () => $('#messages').append(element('li', { className: 'bad', textContent: 'Something is missing here.' })));

$('#form').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  const payload = { name: $('#name').value, text: $('#text').value };
  const messageId = `chat-${crypto.getRandomValues(new Uint32Array(3)).join('-')}`;
  $('#text').value = '';
  const sent = { messageId, timestamp: new Date().toISOString() };
  show(payload, sent, { kind: 'warn', text: 'sending' });
  try {
    await lobby.publish('said', payload, { messageId, timeout: 120_000 });
  } catch (error) {
    show(payload, sent, { kind: 'warn', text: `not sent: ${error.code}` });
  }
});

// --- Typing ---

function showTyping() {
  const names = [...typists.keys()];
  $('#typing').textContent = names.length > 0 ? `${names.join(', ')} ${names.length > 1 ? 'are' : 'is'} typing …` : '';
}

typing.on('typing', ({ name }) => {
  clearTimeout(typists.get(name));
  typists.set(name, setTimeout(() => {
    typists.delete(name);
    showTyping();
  }, 2_500));
  showTyping();
});

let told = 0;
$('#text').addEventListener('input', () => {
  if (Date.now() - told < 1_000) return;
  told = Date.now();
  typing.send('typing', { name: $('#name').value }, { echo: false });
});

// --- The line ---

$('#line').addEventListener('click', () => {
  if (line.isCut) {
    line.mend();
    mendedAt = Date.now();
    caughtUp = 0;
    tw.connect();
  } else {
    line.cut();
    $('#caught').textContent = '';
  }
  $('#line').textContent = line.isCut ? 'Mend the line' : 'Cut the line';
});
