import { type Context, type Failure, type Frame, type Link, type Place, now, written } from './link.js';

/** Most bytes that may wait in the socket before messages without an acknowledgement are dropped. */
const BUFFERED = 1 << 16;

/** A WebSocket, with channels and publishes as frames on it. */
export function openWebSocket(context: Context): Link {
  const url = context.url('v1/ws');
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new context.WebSocket(url);
  /** What answers take. Publishes have positive ids, all else negative ones. */
  const asked = new Map<number, ((frame: Frame) => void) | undefined>();
  /** The `subscribe` of each channel that counts, positive once it is acknowledged. */
  const wanted = new Map<string, number>();
  let ids = 0;
  let welcome: Frame | undefined;
  let isIn = !context.token();
  let open = false;
  let heard = now();
  let pinged = 0;
  let { quiet, patience } = context;

  const ask = (frame: object, answered?: (frame: Frame) => void): number => {
    asked.set(--ids, answered);
    socket.send(JSON.stringify({ ...frame, id: ids }));
    return ids;
  };

  const close = (): void => {
    open = false;
    clearInterval(watchdog);
    socket.onclose = socket.onerror = socket.onmessage = () => {};
    socket.close();
  };

  const probe = (): void => {
    if (!open || pinged > heard) return;
    socket.send('{"type":"ping"}');
    pinged = now();
  };

  /** Looks whether the gateway has said anything lately; asks it, and gives up. */
  const watchdog = setInterval(() => {
    if (pinged > heard && now() - pinged > patience) {
      close();
      context.failed({ code: 'timeout' });
    } else if (now() - heard > quiet!) {
      probe();
    }
  }, 500);

  const authorize = (): void => {
    ask({ type: 'auth', token: context.token() }, (frame) => {
      if (frame.type === 'ack') {
        isIn = true;
        begin();
      } else if (frame.code === 'unavailable' && !open) {
        close();
        context.failed(frame as Frame & Failure);
      }
      // Else the close code that follows will tell.
    });
  };

  const begin = (): void => {
    if (open || !welcome || !isIn) return;
    open = true;
    quiet ??= welcome.heartbeat * 1000;
    context.opened(welcome.session);
    context.places().forEach(subscribe);
  };

  const subscribe = (place: Place): void => {
    const { name: channel, cursor, rewind } = place;
    const id = ask({ type: 'subscribe', channel, cursor, rewind: cursor ? undefined : rewind }, (frame) => {
      if (wanted.get(channel) !== id) return;
      if (frame.type === 'ack') {
        wanted.set(channel, -id);
        context.receive({ ...frame, type: 'subscribed', channel });
      } else if (frame.code === 'already_subscribed') {
        // The token's own: it goes on from our place instead of the present.
        unsubscribe(channel);
        subscribe(place);
      } else {
        refused({ ...frame, channel });
      }
    });
    wanted.set(channel, id);
  };

  /** Tells that a channel is not there, or asks again when that may help. */
  const refused = (frame: Frame): void => {
    const { channel, code, retry = 1_000 } = frame;
    wanted.delete(channel);
    if (code !== 'unavailable') return context.receive(frame);
    setTimeout(() => {
      const place = context.places().find(({ name }) => name === channel);
      if (open && place && !wanted.has(channel)) subscribe(place);
    }, retry);
  };

  const unsubscribe = (channel: string): void => {
    wanted.delete(channel);
    ask({ type: 'unsubscribe', channel });
  };

  socket.onopen = () => {
    if (!isIn) authorize();
  };
  socket.onmessage = ({ data }) => {
    heard = now();
    // A socket that speaks MessagePack gives what it has decoded.
    const frame: Frame = data.type ? data : JSON.parse(data);
    const { type, id, channel } = frame;
    if (type === 'welcome') {
      welcome = frame;
      begin();
    } else if (id < 0) {
      asked.get(id)?.(frame);
      asked.delete(id);
    } else if (!channel || wanted.get(channel)! > 0) {
      // What comes on other channels was not asked for by us.
      if (type === 'unsubscribed') refused(frame);
      else context.receive(frame);
    }
  };
  // An error is followed by a close with 1006, but not where the page's policy forbids the address.
  socket.onclose = socket.onerror = ({ code = 1006, reason }: Partial<CloseEvent>) => {
    close();
    context.failed({
      code: code === 1006 ? 'network' : code,
      message: reason,
      final: code >= 4100 && code < 4200,
      token: code === 4002 || code === 4100,
    });
  };

  return {
    // Before that it is not needed: all are subscribed at the beginning.
    subscribe: (place) => open && subscribe(place),
    unsubscribe: (name) => open && unsubscribe(name),
    publish: (post) => {
      const { id, echo, method } = post;
      if (id || socket.bufferedAmount < BUFFERED) socket.send(written({ type: method ? 'rpc' : 'publish', id, echo }, post));
    },
    asks: true,
    probe,
    renew: authorize,
    close,
  };
}
