/**
 * What a rejected promise of this library holds. Its `code` is one of the protocol's (`forbidden`, `conflict`, …) or of
 * the client's own: `unavailable` (not sent within its time), `timeout` (sent, but the outcome is unknown), `queue_full`
 * (too many wait), `closed`. Its `messageId` is that of the message that was not acknowledged: publishing again with it
 * is safe.
 */
export class TidewireError extends Error {
  override name = 'TidewireError';

  constructor(readonly code: string | number, message = `${code}`, readonly messageId?: string) {
    super(message);
  }
}
