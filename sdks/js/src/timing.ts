/** A promise that somebody else settles. */
export interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

/** Makes one. */
export function deferred(): Deferred {
  let settle: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return {
    promise,
    resolve: () => {
      settle();
    },
  };
}

/** What ends a pause early. */
export interface PauseOptions {
  /** Rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Ends the pause when it has settled. */
  readonly until?: Promise<unknown> | undefined;
}

/** Waits so many milliseconds. Gives true if `until` has settled before. */
export function pause(milliseconds: number, options: PauseOptions = {}): Promise<boolean> {
  const { signal, until } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    };
    const cancel = (): void => {
      end();
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(
      () => {
        end();
        resolve(false);
      },
      Math.max(0, milliseconds),
    );
    signal?.addEventListener("abort", cancel);
    const settled = (): void => {
      end();
      resolve(true);
    };
    until?.then(settled, settled);
  });
}
