/** What only Node has; bundlers for browsers take platform-browser.js instead, see `imports` and `browser` in package.json. */
import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
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

// The NATS client leaves the socket of an attempt that timed out open for ever, which keeps the process alive. Node tells of
// each new socket, so that those of a failed attempt can be closed.
const attempts = new AsyncLocalStorage<Set<Socket>>();

async function connectSocket(
  options: ConnectionOptions,
  signal: AbortSignal | undefined,
): Promise<NatsConnection> {
  const sockets = new Set<Socket>();
  const opened = (message: unknown): void => {
    if (attempts.getStore() === sockets) sockets.add((message as { socket: Socket }).socket);
  };
  const closeAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  subscribe("net.client.socket", opened);
  signal?.addEventListener("abort", closeAll);
  try {
    const connecting = attempts.run(sockets, () => connect(options));
    return await Promise.race([connecting, allClosed(sockets, connecting)]);
  } catch (error) {
    closeAll();
    throw error;
  } finally {
    signal?.removeEventListener("abort", closeAll);
    unsubscribe("net.client.socket", opened);
  }
}

// Nor does it notice that a server hangs up before it has said anything, until the attempt times out.
function allClosed(sockets: Set<Socket>, connecting: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => {
    let closed = 0;
    const watch = setInterval(() => {
      const isOver = sockets.size > 0 && [...sockets].every((socket) => socket.destroyed);
      closed = isOver ? closed + 1 : 0;
      if (closed === 3) reject(new Error("the server hung up"));
    }, 20);
    const stop = (): void => {
      clearInterval(watch);
    };
    connecting.then(stop, stop);
  });
}

function transport(options: ConnectionOptions, signal?: AbortSignal): Promise<NatsConnection> {
  const isWebSocket = String(options.servers).startsWith("ws");
  return isWebSocket ? wsconnect(options) : connectSocket(options, signal);
}

export const platform: Platform = { makeContext, credentials, transport };
