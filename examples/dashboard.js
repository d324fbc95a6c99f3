// The cluster's metrics, once a second, from one stored channel: the last minute comes with `rewind`.

import { $, element, open } from './lib/demo.js';

const SHOWN = 60;
const HUES = [210, 140, 30, 280, 0, 180];
const seconds = [];
let scheduled = false;

open().channel('metrics:cluster', { rewind: SHOWN }).on('second', ({ nodes }) => {
  seconds.push(nodes);
  if (seconds.length > SHOWN) seconds.shift();
  // Once, however many come together.
  if (!scheduled) requestAnimationFrame(draw);
  scheduled = true;
});

const sum = (nodes, key) => nodes.reduce((total, node) => total + (node[key] ?? 0), 0);
const count = (number, name) => `${number} ${name}${number === 1 ? '' : 's'}`;
const colour = (at) => `hsl(${HUES[at % HUES.length]} 65% 50%)`;

function draw() {
  scheduled = false;
  const nodes = seconds.at(-1);
  $('#hint').hidden = true;
  $('#connections').textContent = sum(nodes, 'connections');
  $('#delivered').textContent = sum(nodes, 'delivered').toLocaleString('en');
  $('#memory').textContent = `${(sum(nodes, 'memory') / 2 ** 20).toFixed(0)} MiB`;
  const high = Math.max(1, ...seconds.flat().map(({ delivered = 0 }) => delivered));
  $('#chart').replaceChildren(...nodes.map((_, node) => lineOf(node, high)));
  $('#high').textContent = `${high.toLocaleString('en')} per second`;
  $('#legend').replaceChildren(...nodes.map((_, at) => {
    const label = element('span', { textContent: `● node ${at + 1}` });
    label.style.color = colour(at);
    return label;
  }));
  $('#nodes').replaceChildren(...nodes.map(({ up, connections, channels }, at) => element('li', { className: 'row' },
    element('span', { className: 'grow', textContent: `Node ${at + 1}` }),
    element('span', { className: 'quiet small', textContent: up ? `${count(connections, 'connection')}, ${count(channels, 'channel')}` : '' }),
    element('span', { className: `tag ${up ? 'good' : 'warn'}`, textContent: up ? 'up' : 'down' }))));
}

function lineOf(node, high) {
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  const point = (nodes, at) => `${((at + SHOWN - seconds.length) / (SHOWN - 1)) * 600},${190 - ((nodes[node]?.delivered ?? 0) / high) * 180}`;
  line.setAttribute('points', seconds.map(point).join(' '));
  line.setAttribute('fill', 'none');
  line.setAttribute('stroke', colour(node));
  line.setAttribute('stroke-width', '2');
  line.setAttribute('vector-effect', 'non-scaling-stroke');
  return line;
}
