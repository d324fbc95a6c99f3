/**
 * Tells when a page is put away (frozen, or kept for the back button: nothing runs in it until it is shown) and when
 * it is a good moment to look whether the connection lives: the network is back, or the page is looked at again.
 * Does nothing where there are no such events (Node.js).
 */
export function watchLifecycle(awake: () => void, asleep: () => void, signal: AbortSignal): void {
  const happened = ({ type }: Event): void => {
    if (/freeze|hide/.test(type)) asleep();
    else if (type[0] !== 'v' || !document.hidden) awake();
  };
  for (const name of 'online pageshow resume visibilitychange freeze pagehide'.split(' ')) {
    // Some of them are the document's: on their way to it they pass here.
    globalThis.addEventListener?.(name, happened, { capture: true, signal });
  }
}
