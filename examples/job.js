// Progress of a long job. Who publishes it knows Redis only: see backend/job.mjs.

import { $, open } from './lib/demo.js';

const tw = open();
let job;

function follow(id) {
  job?.leave();
  $('#title').textContent = `Job ${id}`;
  const link = new URL(location.href);
  link.hash = id;
  $('#share').href = link.href;
  $('#share').hidden = false;
  history.replaceState(null, '', link);
  job = tw.channel(`job:${id}`, { rewind: 1 });
  job.on('progress', ({ percent, step }) => {
    $('#bar').value = percent;
    $('#percent').textContent = `${percent} %`;
    $('#step').textContent = step;
  });
}

$('#start').addEventListener('click', async () => {
  $('#fault').textContent = '';
  try {
    const answer = await fetch('api/jobs', { method: 'POST' });
    if (!answer.ok) throw new Error(`${answer.status}`);
    follow((await answer.json()).id);
  } catch {
    $('#fault').textContent = 'The demos\' backend is not here. From a shell: tidewire publish --event progress job:my-job \'{"percent":50,"step":"half of it"}\'';
    follow('my-job');
  }
});

if (location.hash) follow(decodeURIComponent(location.hash.slice(1)));
$('#backend').textContent = await (await fetch('backend/job.mjs')).text();
