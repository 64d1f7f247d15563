/** Takes the place of platform.js in browsers. */
import { wsconnect } from "@nats-io/nats-core";
import type { Authenticator } from "@nats-io/nats-core";
import type { Context, Platform } from "./platform-types.js";

// Browsers can't tell yet on whose behalf code runs after an await: stop() inside a handler must not be awaited there.
function makeContext<T>(): Context<T> {
  return {
    getStore: () => undefined,
    run: (_store, action) => action(),
  };
}

function credentials(): Promise<Authenticator> {
  return Promise.reject(new Error("there are no files in a browser"));
}

export const platform: Platform = { makeContext, credentials, transport: wsconnect };
