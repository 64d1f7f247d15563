/** Where the client says what it can tell nobody by an error. `console` is one. */
export interface Logger {
  debug(...data: unknown[]): void;
  info(...data: unknown[]): void;
  warn(...data: unknown[]): void;
}

const ignore = (): void => undefined;

const quiet: Logger = { debug: ignore, info: ignore, warn: ignore };

/** Warnings go to the console, the rest nowhere, until `setLogger` says otherwise. */
export let log: Logger = {
  ...quiet,
  warn: (...data) => {
    console.warn("mq9:", ...data);
  },
};

/** Takes over what the clients of this process log; undefined makes them quiet. */
export function setLogger(logger: Logger | undefined): void {
  log = logger ?? quiet;
}
