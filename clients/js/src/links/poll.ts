import { REFUSED, httpLink, request } from './http.js';
import { type Context, type Frame, type Link, type Place, now } from './link.js';
import { grouped, query } from './sse.js';

/** How many seconds a poll may wait for a message. */
const WAIT = 25;
/** A poll that is answered empty sooner than this (ms) is not repeated at once: the node is stopping. */
const HASTY = 1_000;

/** Long polls, which work wherever the web does. Stored channels only. */
export function openPoll(context: Context): Link {
  return httpLink(context, (fail) => {
    /** Channels that have a place and are polled together. */
    const settled = new Set<Place>();

    /** Polls once: the answer, or the code if a channel is refused, or nothing if it is over. */
    const poll = (places: Place[], wait: number, signal: AbortSignal): Promise<Record<string, any>> =>
      request(context, `v1/poll?wait=${wait}&${query(places)}`, signal, wait * 1000 + context.patience, async (response) => {
        const { failure, status } = response;
        const answer = failure ?? await response.json();
        if (signal.aborted) return {};
        if (!failure || REFUSED.includes(status)) {
          context.opened();
          return answer;
        }
        fail(failure);
        return {};
      });

    const tell = ({ gaps = [], messages }: Record<string, any>): void => {
      gaps.forEach((gap: Frame) => context.receive({ ...gap, type: 'gap' }));
      messages.forEach(context.receive);
    };

    /** Gets a channel's place and what is behind it, or learns that it cannot be had. */
    const settle = async (place: Place, signal: AbortSignal): Promise<void> => {
      const { name: channel, cursor } = place;
      const answer = await poll([place], 0, signal);
      if (answer.code) context.receive({ ...answer, type: '', channel });
      if (!answer.messages) return;
      settled.add(place);
      context.receive({ type: 'subscribed', channel, cursor: cursor ?? answer.cursor, recovered: cursor && !answer.gaps });
      tell(answer);
    };

    /** Polls a group of channels until something is to be done anew. */
    const follow = async (places: Place[], signal: AbortSignal): Promise<void> => {
      for (;;) {
        const began = now();
        const answer = await poll(places, WAIT, signal);
        if (answer.code) {
          // One of them is not ours any more: which one shows when each is asked.
          settled.clear();
          return start(signal);
        }
        if (!answer.messages) return;
        tell(answer);
        if (!answer.messages[0] && now() - began < HASTY) {
          await new Promise((done) => setTimeout(done, HASTY * (0.5 + Math.random())));
        }
      }
    };

    const start = async (signal: AbortSignal): Promise<void> => {
      const wanted = context.places();
      for (const place of settled) if (!wanted.includes(place)) settled.delete(place);
      for (const place of wanted) if (!settled.has(place)) await settle(place, signal);
      // With their places as they are now: all that are settled have one.
      await Promise.all(grouped([...settled]).map((group) => follow(group, signal)));
    };

    return { start };
  });
}
