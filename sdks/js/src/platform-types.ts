import type { Authenticator, ConnectionOptions, NatsConnection } from "@nats-io/nats-core";

/** A value that everything which an action does can see, also after an await. */
export interface Context<T> {
  getStore(): T | undefined;
  run<R>(store: T, action: () => R): R;
}

/** What depends on where the client runs. */
export interface Platform {
  readonly makeContext: <T>() => Context<T>;
  readonly credentials: (path: string) => Promise<Authenticator>;
  readonly transport: (options: ConnectionOptions, signal?: AbortSignal) => Promise<NatsConnection>;
}
