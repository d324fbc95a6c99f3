// What the types say: checked by `npm run typecheck`, and nothing is connected.

import { expectTypeOf, test } from 'vitest';
import type { Channel, Client, Message, Receipt, State } from '../src/index.js';

test('events of a channel have payloads of their own', () => {
  const check = (tw: Client): void => {
    const room = tw.channel<{ new_message: { text: string }; read: { by: string } }>('room:42');
    room.on('new_message', (payload, message) => {
      expectTypeOf(payload).toEqualTypeOf<{ text: string }>();
      expectTypeOf(message).toEqualTypeOf<Message<{ text: string }>>();
    });
    room.on('gap', ({ after, cursor }) => expectTypeOf([after, cursor]).toEqualTypeOf<(string | undefined)[]>());
    expectTypeOf(room.publish('read', { by: 'ada' })).toEqualTypeOf<Promise<Receipt>>();
    // @ts-expect-error the payload of another event
    void room.publish('read', { text: 'hi' });
    // @ts-expect-error no such event
    void room.publish('typo', { text: 'hi' });
    expectTypeOf(tw.channel('any')).toEqualTypeOf<Channel<any>>();
    expectTypeOf(tw.rpc<number>('add')).toEqualTypeOf<Promise<number>>();
    tw.on('state', (state) => {
      expectTypeOf(state).toEqualTypeOf<State>();
      if (state.status === 'open') expectTypeOf(state.transport).toEqualTypeOf<'ws' | 'sse' | 'poll'>();
      // @ts-expect-error only while waiting
      void state.until;
    });
  };
  expectTypeOf(check).toBeFunction();
});
