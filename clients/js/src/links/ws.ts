import { type Context, type Failure, type Frame, type Link, type Place, now, size, written } from './link.js';

/** Most bytes that may wait in the socket before messages without an acknowledgement are dropped. */
const BUFFERED = 1 << 16;
/** A second (ms), and a little more: pongs, which nobody here sees, count at the gateway, too. */
const SECOND = 1_010;
/** So far (ms) may frames be ahead of the gateway's pace: it allows two seconds, and lines make bunches. */
const BURST = 1_500;

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
  /** Frames that wait for their turn, before any publish. */
  const lane: string[] = [];
  /** When all that was sent would have gone out, at the gateway's pace. */
  let due = 0;

  const ahead = (): number => due - now();

  const send = (text: string): void => {
    const { frames, bytes } = welcome?.pace ?? {};
    due = Math.max(due, now()) + SECOND * Math.max(1 / frames || 0, size(text) / bytes || 0);
    socket.send(text);
  };

  const drain = (): void => {
    while (lane[0] && ahead() < BURST) send(lane.shift()!);
    if (lane[0]) setTimeout(drain, ahead() - BURST);
  };

  const ask = (frame: object, answered?: (frame: Frame) => void): number => {
    asked.set(--ids, answered);
    if (lane.push(JSON.stringify({ ...frame, id: ids })) < 2) drain();
    return ids;
  };

  const close = (): void => {
    open = false;
    lane.length = 0;
    clearInterval(watchdog);
    socket.onclose = socket.onerror = socket.onmessage = () => {};
    socket.close();
  };

  const fail = (failure: Failure): void => {
    close();
    context.failed(failure);
  };

  const probe = (): void => {
    if (!open || pinged > heard) return;
    ask({ type: 'ping' });
    pinged = now();
  };

  /** Looks whether the gateway has said anything lately; asks it, and gives up. */
  const watchdog = setInterval(() => {
    if (pinged > heard && now() - pinged > patience) {
      fail({ code: 'timeout' });
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
        fail(frame as Frame & Failure);
      }
      // Else the close code that follows will tell.
    });
  };

  const begin = (): void => {
    if (open || !welcome || !isIn) return;
    open = true;
    quiet ??= welcome.heartbeat * 1000;
    context.places().forEach(subscribe);
    context.opened(welcome.session);
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

  const refused = (frame: Frame): void => {
    wanted.delete(frame.channel);
    context.receive(frame);
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
    fail({
      code: code === 1006 ? 'network' : code,
      message: reason,
      final: code >= 4100,
      token: code === 4002 || code === 4100,
    });
  };

  return {
    // Before that it is not needed: all are subscribed at the beginning.
    subscribe: (place) => open && !wanted.has(place.name) && subscribe(place),
    unsubscribe: (name) => open && unsubscribe(name),
    wait: () => ahead() - BURST + lane.length,
    publish: (post) => {
      const { id, echo, method } = post;
      // Half of the burst is for those that are waited for.
      if (id || (socket.bufferedAmount < BUFFERED && ahead() < BURST / 2)) {
        send(written({ type: method ? 'rpc' : 'publish', id, echo }, post));
      }
    },
    asks: true,
    probe,
    // A token that is under way already is good for now.
    renew: () => welcome && authorize(),
    close,
  };
}
