// A game: positions on a live channel, sixty times a second, at most once; what counts, the catches, on a stored one,
// where the order is the same for all: the first who catches a buoy has it.

import { $, nickname, open } from './lib/demo.js';

const AWAY = 3_000;
const REACH = 34;
const SPEED = 5;
const tw = open();
const me = crypto.getRandomValues(new Uint32Array(2)).join('-');
const positions = tw.channel('live:game');
const catches = tw.channel('game:catches', { rewind: 1 });

const sea = $('#sea');
const pen = sea.getContext('2d');
const own = { name: nickname(), x: 480, y: 270, hue: parseInt(me, 10) % 360 };
const boats = new Map();
let goal;
let buoy = 0;
let score = 0;
let claimed = -1;
let heard = 0;
const keys = new Set();

/** Where a buoy lies: the same for all, from its number. */
function place(number) {
  const mixed = Math.imul(number + 1, 2_654_435_761) >>> 0;
  return { x: 60 + (mixed % 840), y: 60 + ((mixed >>> 10) % 420) };
}

positions.on('at', ({ by, name, x, y, hue }) => {
  heard += 1;
  boats.set(by, { name: String(name), x: Number(x), y: Number(y), hue: Number(hue), seen: performance.now() });
});

catches.on('caught', ({ by, number }) => {
  // Who was later than another says the same number again.
  if (number < buoy) return;
  buoy = number + 1;
  if (by !== me) return;
  score += 1;
  $('#score').textContent = `${score} caught`;
});

function steer() {
  const step = { x: keys.has('ArrowRight') - keys.has('ArrowLeft'), y: keys.has('ArrowDown') - keys.has('ArrowUp') };
  if (step.x || step.y) goal = { x: own.x + step.x * 60, y: own.y + step.y * 60 };
  else if (keys.size > 0) goal = undefined;
  if (!goal) return;
  const [dx, dy] = [goal.x - own.x, goal.y - own.y];
  const far = Math.hypot(dx, dy);
  const way = Math.min(far, SPEED);
  if (far < 1) return;
  own.x = Math.min(950, Math.max(10, own.x + (dx / far) * way));
  own.y = Math.min(530, Math.max(10, own.y + (dy / far) * way));
}

function turn() {
  steer();
  positions.send('at', { by: me, ...own, x: Math.round(own.x), y: Math.round(own.y) }, { echo: false });
  const { x, y } = place(buoy);
  if (claimed < buoy && Math.hypot(own.x - x, own.y - y) < REACH) {
    claimed = buoy;
    // Should it not get through, it may be claimed again.
    catches.publish('caught', { by: me, number: buoy }, { timeout: 5_000 }).catch(() => { claimed = -1; });
  }
}
setInterval(turn, 1_000 / 60);

function draw() {
  pen.clearRect(0, 0, sea.width, sea.height);
  const { x, y } = place(buoy);
  // For who looks at the page by a program.
  sea.dataset.buoy = `${x} ${y}`;
  pen.fillStyle = '#d8542f';
  pen.beginPath();
  pen.arc(x, y, 12 + Math.sin(performance.now() / 200) * 2, 0, 7);
  pen.fill();
  for (const [by, { seen }] of boats) if (performance.now() - seen > AWAY) boats.delete(by);
  for (const boat of [...boats.values(), own]) drawBoat(boat);
  $('#players').textContent = boats.size === 0 ? '1 boat' : `${boats.size + 1} boats`;
  requestAnimationFrame(draw);
}

function drawBoat({ name, x, y, hue }) {
  pen.fillStyle = `hsl(${hue} 65% 50%)`;
  pen.beginPath();
  pen.arc(x, y, 14, 0, 7);
  pen.fill();
  pen.font = '14px system-ui, sans-serif';
  pen.textAlign = 'center';
  pen.fillStyle = getComputedStyle(sea).color;
  pen.fillText(name, x, y - 20);
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
