// Notifications to one user on all devices. The form does what a backend would: a plain POST.

import { $, cuttableLine, element, gateway, open, time } from './lib/demo.js';

const line = cuttableLine();
const tw = open(line.options);
let channel;
let unread = 0;

function listen() {
  channel?.leave();
  $('#list').replaceChildren();
  unread = 0;
  $('#unread').textContent = unread;
  channel = tw.channel(`user:${$('#user').value}`, { rewind: 10 });
  channel.on('notification', ({ text }, { timestamp }) => {
    unread += 1;
    $('#unread').textContent = unread;
    $('#list').prepend(element('li', {}, text, ' ', element('span', { className: 'small quiet', textContent: time(timestamp) })));
  });
}

const path = () => new URL(`v1/channels/${encodeURIComponent(`user:${$('#to').value}`)}/messages`, gateway);
const body = () => JSON.stringify({ event: 'notification', payload: { text: $('#text').value } });

function showShell() {
  $('#shell').textContent = `curl ${path()} \\\n  -H 'content-type: application/json' \\\n  -d '${body().replaceAll("'", "'\\''")}'`;
}

$('#form').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  const answer = await fetch(path(), { method: 'POST', headers: { 'content-type': 'application/json' }, body: body() });
  $('#answer').textContent = `${answer.status} ${await answer.text()}`;
});
$('#form').addEventListener('input', showShell);
$('#user').addEventListener('change', listen);
$('#line').addEventListener('click', () => {
  if (line.isCut) {
    line.mend();
    tw.connect();
  } else {
    line.cut();
  }
  $('#line').textContent = line.isCut ? 'Go online' : 'Go offline';
});

listen();
showShell();
