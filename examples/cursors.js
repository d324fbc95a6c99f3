// Pointers on a live channel; a text on a stored one. The channel's order decides: an edit counts if it is based on the
// version before it, and so every window comes to the same text. Whose edit was too late, rebases and sends it again.

import { $, element, nickname, open } from './lib/demo.js';

const tw = open();
const me = crypto.getRandomValues(new Uint32Array(2)).join('-');
const board = new URLSearchParams(location.search).get('board') ?? 'demo';

// --- The text ---

const edits = tw.channel(`text:${board}`, { rewind: 1_000 });
/** What all agree on. */
let version = 0;
let agreed = '';
/** An edit that was sent and is not decided; what is typed meanwhile waits. */
let pending = false;

/** The one stretch in which two texts differ. */
function difference(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let tail = 0;
  while (tail < before.length - start && tail < after.length - start && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  return { start, removed: before.length - start - tail, text: after.slice(start, after.length - tail) };
}

const apply = (base, { start, removed, text }) => base.slice(0, start) + text + base.slice(start + removed);

/** The same edit, where another has happened before it. */
function rebased(edit, other) {
  const shift = other.text.length - other.removed;
  return { ...edit, start: edit.start >= other.start + other.removed ? edit.start + shift : Math.min(edit.start, other.start + other.text.length) };
}

edits.on('edit', ({ by, base, full, ...edit }) => {
  // The history may begin in the middle: an edit that brings the whole text is a beginning.
  if (full !== undefined && base >= version) {
    version = base;
    agreed = full;
  } else if (base !== version) {
    if (by === me) lost();
    return;
  }
  const field = $('#text');
  const own = by === me ? undefined : difference(agreed, field.value);
  const at = field.selectionStart;
  agreed = apply(agreed, edit);
  version = base + 1;
  $('#version').textContent = version;
  if (by === me) {
    pending = false;
  } else {
    const mine = own.removed > 0 || own.text !== '' ? rebased(own, edit) : { start: 0, removed: 0, text: '' };
    field.value = apply(agreed, mine);
    const caret = at > edit.start ? Math.max(edit.start, at + edit.text.length - edit.removed) : at;
    field.setSelectionRange(caret, caret);
  }
  offer();
});

/** Someone else was faster: what is in the field is compared with what is agreed now, and sent again. */
function lost() {
  pending = false;
  $('#conflict').hidden = false;
  setTimeout(() => { $('#conflict').hidden = true; }, 1_500);
  offer();
}

/** Sends what has changed, if nothing of ours is under way. */
function offer() {
  const { value } = $('#text');
  if (pending || value === agreed) return;
  pending = true;
  const edit = { by: me, base: version, ...difference(agreed, value) };
  // Now and then the whole text, for who comes when the first edits are not kept any more.
  if (version % 20 === 0) edit.full = agreed;
  edits.publish('edit', edit, { timeout: 120_000 }).catch(lost);
}

$('#text').addEventListener('input', offer);

// --- The pointers ---

const pointers = tw.channel(`live:pointers:${board}`);
const shown = new Map();
const hue = ([...me].reduce((sum, char) => sum + char.charCodeAt(0) * 7, 0) % 360);

pointers.on('moved', ({ by, name, x, y, hue }) => {
  let pointer = shown.get(by);
  if (!pointer) {
    pointer = element('div', { className: 'pointer' }, element('span', { textContent: name }));
    pointer.style.setProperty('--hue', Number(hue));
    $('#pointers').append(pointer);
    shown.set(by, pointer);
  }
  pointer.style.left = `${x * 100}%`;
  pointer.style.top = `${y * 100}%`;
  clearTimeout(pointer.timer);
  pointer.timer = setTimeout(() => {
    pointer.remove();
    shown.delete(by);
  }, 5_000);
});

let next;
$('#board').addEventListener('pointermove', ({ clientX, clientY }) => {
  const { left, top, width, height } = $('#board').getBoundingClientRect();
  const where = { x: (clientX - left) / width, y: (clientY - top) / height };
  // One a frame, the newest.
  if (!next) requestAnimationFrame(() => {
    pointers.send('moved', { by: me, name: nickname(), hue, ...next }, { echo: false });
    next = undefined;
  });
  next = where;
});
