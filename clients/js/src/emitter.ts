type Handler = (...args: any[]) => void;

/** Handlers by name. One that throws stops neither the others nor the stream. */
export interface Emitter {
  /** Adds a handler; gives what removes it. */
  on(name: string, handler: Handler): () => void;
  clear(): void;
  /** Whether there was a handler. One that is added meanwhile is not called. */
  emit(name: string, ...args: unknown[]): unknown;
}

export function emitter(report: (error: unknown) => void): Emitter {
  const handlers = new Map<string, Set<Handler>>();
  return {
    on: (name, handler) => {
      const set = handlers.get(name) ?? new Set();
      handlers.set(name, set.add(handler));
      return () => void set.delete(handler);
    },
    // The sets, too: an emit may be walking over one of them.
    clear: () => handlers.forEach((set) => set.clear()),
    emit: (name, ...args) => {
      const set = handlers.get(name);
      for (const handler of [...set ?? []]) {
        try {
          // Unless a handler before it has removed it.
          if (set!.has(handler)) handler(...args);
        } catch (error) {
          report(error);
        }
      }
      return set?.size;
    },
  };
}
