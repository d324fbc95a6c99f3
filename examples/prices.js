// A price feed with the browser's own EventSource: no library.

import { $, gateway } from './lib/demo.js';

const CHANNEL = 'prices:tide';
const SHOWN = 120;
const prices = [];
let last;
let count = 0;
let missing = 0;

const source = new EventSource(new URL(`v1/sse?channel=${CHANNEL}&rewind=60`, gateway));
source.addEventListener('tick', ({ data }) => tick(JSON.parse(data)));
// Should something be lost for good, the gateway says so before anything newer.
source.addEventListener('tidewire:gap', () => { last = undefined; });
source.addEventListener('tidewire:welcome', () => showState('open', 'connected with EventSource'));
source.onerror = () => showState('waiting', 'the browser comes back by itself');

function showState(name, text) {
  $('.state').className = `state ${name}`;
  $('.state').textContent = text;
}

function tick({ n, price }) {
  // The feed numbers its ticks; another feed may begin anew.
  if (last !== undefined && n > last + 1) missing += n - last - 1;
  last = n;
  count += 1;
  prices.push(price);
  if (prices.length > SHOWN) prices.shift();
  const change = price - (prices.at(-2) ?? price);
  $('#price').textContent = price.toFixed(2);
  $('#change').textContent = `${change < 0 ? '▼' : '▲'} ${Math.abs(change).toFixed(2)}`;
  $('#change').className = `grow ${change < 0 ? 'bad' : 'good'}`;
  $('#count').textContent = count;
  $('#missing').textContent = missing;
  draw();
}

function draw() {
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  // The newest on the right, where the eye is.
  const left = SHOWN - prices.length;
  const point = (price, at) =>
    `${((left + at) / (SHOWN - 1)) * 600},${210 - ((price - low) / (high - low || 1)) * 200}`;
  const line = prices.map(point).join(' ');
  $('#chart polyline').setAttribute('points', line);
  $('#chart polygon').setAttribute('points', `${(left / (SHOWN - 1)) * 600},220 ${line} 600,220`);
  $('#high').textContent = high.toFixed(2);
  $('#low').textContent = low.toFixed(2);
}
$('#grid').innerHTML = [55, 110, 165].map((y) => `<line x1="0" x2="600" y1="${y}" y2="${y}" vector-effect="non-scaling-stroke"/>`).join('');

// Where no backend feeds the channel, a page can: a plain POST ten times a second.
let feeding;
setTimeout(() => { $('#feed').hidden = count > 0; }, 2_000);
$('#feed').addEventListener('click', () => {
  clearInterval(feeding);
  feeding = feeding ? undefined : setInterval(feed, 100);
  $('#feed').textContent = feeding ? 'Stop' : 'Feed prices from here';
});

let walk = prices.at(-1) ?? 100;
let number = 0;
let busy = false;
async function feed() {
  // One at a time, so that they stay in order.
  if (busy) return;
  busy = true;
  walk = Math.max(1, walk + (Math.random() - 0.5) * 2);
  const body = JSON.stringify({ event: 'tick', payload: { n: number, price: Number(walk.toFixed(2)) } });
  try {
    const path = new URL(`v1/channels/${CHANNEL}/messages`, gateway);
    const answer = await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    if (answer.ok) number += 1;
  } catch { /* the next one */ } finally {
    busy = false;
  }
}
