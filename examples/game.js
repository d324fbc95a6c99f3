// A game: positions on a live channel, sixty times a second, at most once; what counts, the catches, on a stored one,
// where the order is the same for all: the first who catches a buoy has it.

import { $, element, nickname, open } from './lib/demo.js';

const AWAY = 3_000;
const REACH = 34;
const SPEED = 5;
const tw = open();
const me = crypto.getRandomValues(new Uint32Array(2)).join('-');
const positions = tw.channel('live:game');
const catches = tw.channel('game:catches', { rewind: 100 });

const sea = $('#sea');
const pen = sea.getContext('2d');
const own = { name: nickname(), x: 480, y: 270, hue: parseInt(me, 10) % 360, heading: 0 };
const boats = new Map();
let goal;
let buoy = 0;
/** Catches by boat: its name and how many. */
const scores = new Map();
let claimed = -1;
let heard = 0;
const keys = new Set();

/** Where a buoy lies: the same for all, from its number. */
function place(number) {
  const mixed = Math.imul(number + 1, 2_654_435_761) >>> 0;
  return { x: 60 + (mixed % 840), y: 60 + ((mixed >>> 10) % 420) };
}

positions.on('at', ({ by, name, x, y, hue, heading }) => {
  heard += 1;
  boats.set(by, { name: String(name), x: Number(x), y: Number(y), hue: Number(hue), heading: Number(heading), seen: performance.now() });
});

catches.on('caught', ({ by, name, number }) => {
  // Who was later than another says the same number again.
  if (number < buoy) return;
  buoy = number + 1;
  const score = scores.get(by) ?? { name: String(name), count: 0 };
  score.count += 1;
  scores.set(by, score);
  showScores();
});

function showScores() {
  $('#score').textContent = `${scores.get(me)?.count ?? 0} caught`;
  const best = [...scores].sort(([, a], [, b]) => b.count - a.count).slice(0, 5);
  $('#best').replaceChildren(...best.map(([by, { name, count }]) => element('li', { className: 'row' },
    element('span', { className: 'grow', textContent: by === me ? `${name} (you)` : name }),
    element('b', { textContent: count }))));
  $('#nobody').hidden = best.length > 0;
}

function steer() {
  const step = { x: keys.has('ArrowRight') - keys.has('ArrowLeft'), y: keys.has('ArrowDown') - keys.has('ArrowUp') };
  if (step.x || step.y) goal = { x: own.x + step.x * 60, y: own.y + step.y * 60 };
  else if (keys.size > 0) goal = undefined;
  if (!goal) return;
  const [dx, dy] = [goal.x - own.x, goal.y - own.y];
  const far = Math.hypot(dx, dy);
  const way = Math.min(far, SPEED);
  if (far < 1) return;
  own.heading = Math.atan2(dy, dx);
  own.x = Math.min(950, Math.max(10, own.x + (dx / far) * way));
  own.y = Math.min(530, Math.max(10, own.y + (dy / far) * way));
}

function turn() {
  steer();
  positions.send('at', { by: me, ...own, x: Math.round(own.x), y: Math.round(own.y), heading: Number(own.heading.toFixed(2)) }, { echo: false });
  const { x, y } = place(buoy);
  if (claimed < buoy && Math.hypot(own.x - x, own.y - y) < REACH) {
    claimed = buoy;
    // Should it not get through, it may be claimed again.
    catches.publish('caught', { by: me, name: own.name, number: buoy }, { timeout: 5_000 }).catch(() => { claimed = -1; });
  }
}
setInterval(turn, 1_000 / 60);

const isDark = matchMedia('(prefers-color-scheme: dark)');

function draw() {
  const now = performance.now();
  drawWater(now);
  const { x, y } = place(buoy);
  // For who looks at the page by a program.
  sea.dataset.buoy = `${x} ${y}`;
  drawBuoy(x, y + Math.sin(now / 400) * 3);
  for (const [by, { seen }] of boats) if (now - seen > AWAY) boats.delete(by);
  for (const boat of [...boats.values(), own]) drawBoat(boat);
  $('#players').textContent = boats.size === 0 ? '1 boat' : `${boats.size + 1} boats`;
  requestAnimationFrame(draw);
}

function drawWater(now) {
  pen.fillStyle = isDark.matches ? '#0e2a3a' : '#bfe0ee';
  pen.fillRect(0, 0, sea.width, sea.height);
  pen.strokeStyle = isDark.matches ? '#1b4257' : '#a6d0e2';
  pen.lineWidth = 2;
  for (let row = 0; row < 9; row += 1) {
    pen.beginPath();
    for (let x = 0; x <= sea.width; x += 16) {
      pen.lineTo(x, 30 + row * 60 + Math.sin(x / 60 + row * 2 + now / 900) * 5);
    }
    pen.stroke();
  }
}

function drawBuoy(x, y) {
  pen.fillStyle = '#d8542f';
  pen.beginPath();
  pen.moveTo(x, y - 22);
  pen.lineTo(x + 9, y + 4);
  pen.lineTo(x - 9, y + 4);
  pen.fill();
  pen.beginPath();
  pen.ellipse(x, y + 5, 15, 7, 0, 0, 7);
  pen.fill();
  pen.fillStyle = '#fff';
  pen.fillRect(x - 5, y - 9, 10, 5);
}

function drawBoat({ name, x, y, hue, heading }) {
  pen.save();
  pen.translate(x, y);
  pen.rotate(heading);
  pen.fillStyle = `hsl(${hue} 65% 42%)`;
  pen.beginPath();
  pen.moveTo(22, 0);
  pen.quadraticCurveTo(8, 12, -16, 10);
  pen.lineTo(-16, -10);
  pen.quadraticCurveTo(8, -12, 22, 0);
  pen.fill();
  pen.fillStyle = `hsl(${hue} 65% 88%)`;
  pen.fillRect(-9, -5, 12, 10);
  pen.restore();
  pen.font = '600 15px system-ui, sans-serif';
  pen.textAlign = 'center';
  pen.fillStyle = isDark.matches ? '#e8eef2' : '#16303d';
  pen.fillText(name, x, y - 24);
}
draw();

setInterval(() => {
  $('#rate').textContent = heard;
  heard = 0;
}, 1_000);

const follow = ({ clientX, clientY }) => {
  const { left, top, width, height } = sea.getBoundingClientRect();
  keys.clear();
  goal = { x: ((clientX - left) / width) * sea.width, y: ((clientY - top) / height) * sea.height };
};
sea.style.touchAction = 'none';
sea.addEventListener('pointermove', follow);
sea.addEventListener('pointerdown', follow);
addEventListener('keydown', (event) => {
  if (!event.key.startsWith('Arrow')) return;
  keys.add(event.key);
  event.preventDefault();
});
addEventListener('keyup', ({ key }) => {
  keys.delete(key);
  if (keys.size === 0 && key.startsWith('Arrow')) goal = undefined;
});
