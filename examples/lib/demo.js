// What the demos share: where the gateway is, the line that shows the connection, small helpers. The demos themselves
// use nothing but the client library, or nothing at all.

import { connect } from './tidewire.js';

/** The gateway: where the page came from, or ?gateway=http://127.0.0.1:8000. */
export const gateway = new URL('/', new URLSearchParams(location.search).get('gateway') ?? location.href).href;

export const $ = (selector) => document.querySelector(selector);

/** An element with these properties and children. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** What people call the transports. */
export const NAMES = { ws: 'WebSocket', sse: 'Server-Sent Events', poll: 'polling' };

/** Connects, and shows the state in the element `.state`. */
export function open(options = {}) {
  const tw = connect(gateway, { backoff: { base: 300, cap: 3_000 }, ...options });
  const line = $('.state');
  const show = (state) => {
    line.className = `state ${state.status}`;
    line.textContent = state.status === 'open' ? `connected over ${NAMES[state.transport]}` : state.status;
  };
  tw.on('state', show);
  show(tw.state);
  return tw;
}

/** A line that can be cut: give its `options` to the connection. */
export function cuttableLine() {
  const sockets = new Set();
  let abort = new AbortController();
  const line = {
    isCut: false,
    cut() {
      line.isCut = true;
      abort.abort();
      for (const socket of sockets) socket.close();
      sockets.clear();
    },
    mend() {
      line.isCut = false;
      abort = new AbortController();
    },
    options: {
      WebSocket: class extends WebSocket {
        constructor(url) {
          if (line.isCut) throw new Error('the line is cut');
          super(url);
          sockets.add(this);
        }
      },
      fetch: (url, init) => (line.isCut
        ? Promise.reject(new TypeError('the line is cut'))
        : fetch(url, { ...init, signal: AbortSignal.any([init.signal, abort.signal]) })),
    },
  };
  return line;
}

/** Something to be called by: kept for this window. */
export function nickname() {
  const names = ['Ada', 'Alan', 'Barbara', 'Donald', 'Edsger', 'Grace', 'John', 'Katherine', 'Margaret', 'Radia', 'Tim', 'Vint'];
  const known = sessionStorage.getItem('name');
  if (known) return known;
  const name = `${names[Math.floor(Math.random() * names.length)]} ${Math.floor(Math.random() * 90 + 10)}`;
  sessionStorage.setItem('name', name);
  return name;
}

export const time = (timestamp) => new Date(timestamp).toLocaleTimeString();
