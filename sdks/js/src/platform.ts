/** What only Node has; bundlers for browsers take platform-browser.js instead (`browser` in package.json). */
import { AsyncLocalStorage } from "node:async_hooks";
import { readFile } from "node:fs/promises";
import { credsAuthenticator, wsconnect } from "@nats-io/nats-core";
import type { Authenticator, ConnectionOptions, NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import type { Context, Platform } from "./platform-types.js";

function makeContext<T>(): Context<T> {
  return new AsyncLocalStorage<T>();
}

async function credentials(path: string): Promise<Authenticator> {
  return credsAuthenticator(new Uint8Array(await readFile(path)));
}

function transport(options: ConnectionOptions): Promise<NatsConnection> {
  const isWebSocket = String(options.servers).startsWith("ws");
  return isWebSocket ? wsconnect(options) : connect(options);
}

export const platform: Platform = { makeContext, credentials, transport };
