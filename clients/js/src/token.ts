import { LONGEST } from './links/link.js';
import type { Options } from './types.js';

/** Before a token ends another one is fetched: so long before (ms), or a fifth of its life if that is less. */
const AHEAD = 30_000;

/** Without `iat` the clock here decides, which may be wrong: a token that seems to end so soon (ms) may be good for long. */
const DOUBTFUL = 60_000;

/** For how many milliseconds a JWT is good from now on; for ever if it does not say, or cannot be believed. */
function lifetime(token: string | undefined): number {
  try {
    const { iat, exp } = JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')));
    // By its own times where it has both.
    const life = (exp - (iat ?? Date.now() / 1000)) * 1000;
    return iat || life > DOUBTFUL ? life || Infinity : Infinity;
  } catch {
    return Infinity;
  }
}

/** Gets the user's token, keeps it while it is good, and says when another one is due. */
export interface TokenKeeper {
  /** Whether another one can be had. */
  readonly canRenew: boolean;
  /** The newest one. */
  value(): string | undefined;
  /** Fetches the token, if there is none that will do. */
  get(): Promise<unknown>;
  /** Calls for another one when that is due. */
  remind(): void;
  /** The next `get` fetches anew. */
  drop(): void;
  /** No more of that. */
  rest(): void;
}

export function tokenKeeper(source: Options['token'], renew: () => void): TokenKeeper {
  let value: string | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = 0;
  const canRenew = typeof source === 'function';
  const rest = (): void => clearTimeout(timer);
  return {
    canRenew,
    value: () => value,
    get: async () => {
      if (Date.now() < due) return;
      value = await (canRenew ? source() : source);
      const life = lifetime(value);
      due = Date.now() + life - Math.min(AHEAD, life / 5);
    },
    remind: () => {
      rest();
      // Not sooner than in a second, whatever the token says.
      if (canRenew) timer = setTimeout(renew, Math.min(Math.max(due - Date.now(), 1_000), LONGEST));
    },
    drop: () => {
      due = 0;
    },
    rest,
  };
}
