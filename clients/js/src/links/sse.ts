import { REFUSED, httpLink, request } from './http.js';
import { type Context, type Frame, LONGEST, type Link, type Place, now } from './link.js';

/** The most channels of one stream or poll. */
const GROUP = 32;
/** How often a stream gives a sign of life (ms), unless the gateway says otherwise. */
const HEARTBEAT = 15_000;

/** Places in as few groups as there must be; those that rewind differently apart. */
export function grouped(places: Place[]): Place[][] {
  const groups: Place[][] = [];
  const rewind = ({ cursor, rewind }: Place): unknown => (cursor ? undefined : rewind);
  for (const place of places) {
    const group = groups.find((group) => group.length < GROUP && rewind(group[0]!) === rewind(place));
    if (group) group.push(place);
    else groups.push([place]);
  }
  return groups;
}

/** The query that names these channels and their places. */
export function query(places: Place[]): string {
  return places.map(({ name, cursor, rewind }) => {
    const place = cursor ? `&cursor=${cursor}` : rewind ? `&rewind=${encodeURIComponent(rewind)}` : '';
    return `channel=${encodeURIComponent(name)}${place}`;
  }).join('&');
}

/** The events of a stream, as frames; `retry:` as one, too, and each piece that came, as one without a type. */
export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let type = '';
  let data = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop()!;
    yield { type: '' };
    for (const line of lines) {
      const [, field, text = ''] = /^(\w+): ?(.*)/s.exec(line) ?? [];
      // What is the gateway's own has its type here, behind a prefix; a message is a whole frame, which has its own.
      if (field === 'event') type = text.slice(9);
      if (field === 'data') data += text;
      if (field === 'retry') yield { type: field, retry: +text };
      if (line) continue;
      if (data) yield { type, ...JSON.parse(data) };
      type = data = '';
    }
  }
}

/** Event streams, read with fetch so that the token stays out of the address. */
export function openSse(context: Context): Link {
  return httpLink(context, (fail) => {
    let session: string | undefined;
    let heard = 0;
    let quiet = HEARTBEAT;

    /** The gateway is never silent for longer than its heartbeat. */
    const check = (patience: number): void => {
      if (now() - heard > quiet + patience) fail({ code: 'timeout' });
    };

    /** Reads one stream to its end. */
    const read = (places: Place[], signal: AbortSignal, welcomed: () => void): Promise<void> =>
      request(context, `v1/sse?envelope=1&${query(places)}`, signal, LONGEST, async ({ failure, status, body }) => {
        if (failure) {
          if (!REFUSED.includes(status)) return fail(failure);
          // All of them are refused.
          welcomed();
          return places.forEach(({ name, cursor }) => {
            // A cursor that is none is not the fault of those who have none.
            if (failure.code !== 'bad_cursor' || cursor) context.receive({ ...failure, type: '', channel: name });
          });
        }
        let retry: number | undefined;
        for await (const frame of frames(body!)) {
          if (signal.aborted) return;
          heard = now();
          if (frame.type === 'retry') {
            retry = frame.retry;
          } else if (frame.type === 'welcome') {
            retry = undefined;
            session = frame.session;
            quiet = frame.heartbeat * 1000;
            welcomed();
            frame.channels.forEach((one: object) => context.receive({ ...one, type: 'subscribed' }));
          } else {
            context.receive(frame);
          }
        }
        // Sent away before it began: the gateway or the proxy says when to come back.
        fail({ code: 'network', retry });
      });

    const start = async (signal: AbortSignal): Promise<void> => {
      const groups = grouped(context.places());
      let missing = groups.length;
      const welcomed = (): void => {
        if (!--missing) context.opened(session);
      };
      heard = now();
      const watchdog = setInterval(check, 500, context.patience);
      await Promise.all(groups.map((group) => read(group, signal, welcomed))).finally(() => clearInterval(watchdog));
    };

    return { start, session: () => session, probe: () => check(0) };
  });
}
