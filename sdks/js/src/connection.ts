/**
 * The connection to a NATS server: it carries requests, and comes back by itself when it is lost.
 *
 * The NATS client can reconnect too, but keeps what was published meanwhile and sends it later: a FETCH whose caller has
 * given up long ago would then take messages that nobody handles. So every connection here is a fresh NATS client without
 * reconnection, and this module decides what happens in between:
 *
 * - A request waits for the connection as long as its timeout allows; if that runs out, nothing was sent.
 * - A request that was sent when the connection broke fails at once: its reply can't come any more.
 * - A cancelled request is forgotten; where its reply may bring messages under a lease, that reply is still listened for.
 */
import { createInbox, headers as natsHeaders } from "@nats-io/nats-core";
import type {
  Authenticator,
  ConnectionOptions,
  Msg,
  NatsConnection,
  Status,
  Subscription,
  TlsOptions,
} from "@nats-io/nats-core";
import { Mq9Error } from "./error.js";
import { log } from "./log.js";
import { parseServer } from "./servers.js";
import { deferred, pause } from "./timing.js";
import type { Deferred } from "./timing.js";

const HEADER_LINE = "NATS/1.0\r\n\r\n".length;
const HEADER_EXTRA = ": \r\n".length;
const PING_INTERVAL_MS = 20_000;
const JITTER = 0.5;

/** How to connect; see `connect`. */
export interface Settings {
  readonly servers: readonly string[];
  readonly name: string | undefined;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly token: string | undefined;
  readonly authenticator: Authenticator | undefined;
  readonly tls: TlsOptions | undefined;
  readonly connectTimeoutMs: number;
  readonly reconnectWaitMs: number;
  readonly reconnectWaitMaxMs: number;
  readonly transport: (options: ConnectionOptions, signal?: AbortSignal) => Promise<NatsConnection>;
}

/** A request as the connection carries it. */
export interface Outgoing {
  /** What to call it in errors. */
  readonly operation: string;
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  /** Milliseconds in all, from now. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Called with the reply if it comes after the caller has cancelled. */
  readonly abandoned: ((data: Uint8Array) => Promise<void>) | undefined;
}

interface Waiting {
  reply(message: Msg): void;
  fail(error: Mq9Error): void;
}

/** What a client stands on. */
export interface Carrier {
  /** Whether it was closed for good; one that was given may be closed by its owner. */
  readonly isClosed: boolean;
  /** Whether there is a connection to a server right now. */
  readonly isConnected: boolean;
  /** The server that it is connected to, without credentials. */
  readonly url: string | undefined;
  /** Whether the NATS connection belongs to somebody else. */
  readonly isInjected: boolean;
  /** Whether replies of cancelled requests are still waited for, or handled. */
  readonly isListening: boolean;
  /** Sends a request and gives the body of its reply. */
  request(outgoing: Outgoing): Promise<Uint8Array>;
  /** Makes a round trip to the server, so that what it has sent so far has been handled. */
  flush(timeoutMs: number): Promise<void>;
  /** Waits until replies of cancelled requests have come and been handled. */
  settle(timeoutMs: number): Promise<void>;
  /** Closes the connection for good; one that was given stays open. */
  close(): Promise<void>;
}

/** Carries requests over NATS. */
export class Connection implements Carrier {
  #servers: string[];
  #nats: NatsConnection | undefined;
  #inbox = "";
  #subscription: Subscription | undefined;
  #status: { stop?: () => void } | undefined;
  #ready: Deferred = deferred();
  #isReady = false;
  #isClosed = false;
  #next = 0;
  readonly #closing = new AbortController();
  readonly #waiting = new Map<string, Waiting>();
  readonly #late = new Set<Promise<void>>();
  #supervisor: Promise<void> | undefined;
  readonly #settings: Settings | undefined;
  readonly #injected: NatsConnection | undefined;

  constructor(settings: Settings | undefined, injected?: NatsConnection) {
    this.#settings = settings;
    this.#injected = injected;
    this.#servers = [...(settings?.servers ?? [])];
  }

  get isClosed(): boolean {
    return this.#isClosed || this.#injected?.isClosed() === true;
  }

  get isConnected(): boolean {
    return !this.isClosed && this.#isReady && this.#nats?.isClosed() === false;
  }

  get url(): string | undefined {
    if (!this.isConnected || this.#nats === undefined) return undefined;
    const scheme = this.#servers[0]?.split("://")[0] ?? "nats";
    return `${scheme}://${this.#nats.getServer()}`;
  }

  get isInjected(): boolean {
    return this.#injected !== undefined;
  }

  get isListening(): boolean {
    return this.#waiting.size > 0 || this.#late.size > 0;
  }

  /** Connects to the first server that can be reached. */
  async open(signal?: AbortSignal): Promise<void> {
    if (this.#injected !== undefined) {
      if (this.#injected.isClosed()) {
        throw new Mq9Error("connection_closed", "the NATS connection that was given is closed");
      }
      this.#attach(this.#injected);
      void this.#follow(this.#injected);
      return;
    }
    await this.#connect(signal);
    this.#supervisor = this.#supervise();
  }

  async request(outgoing: Outgoing): Promise<Uint8Array> {
    const { operation, payload, headers, timeoutMs, signal } = outgoing;
    signal?.throwIfAborted();
    const deadline = performance.now() + timeoutMs;
    const nats = await this.#connected(operation, deadline, timeoutMs, signal);
    const names = Object.entries(headers);
    const size = names.reduce(
      (sum, [name, value]) => sum + name.length + value.length + HEADER_EXTRA,
      payload.length + (names.length > 0 ? HEADER_LINE : 0),
    );
    const most = nats.info?.max_payload ?? Infinity;
    if (size > most) {
      throw new Mq9Error(
        "invalid_argument",
        `payload: ${String(size)} bytes with its headers, the server takes at most ${String(most)}`,
        { code: "payload_too_large", field: "payload", operation },
      );
    }
    const message = await this.#exchange(nats, outgoing, deadline);
    if (message.data.length === 0 && message.headers?.code === 503) {
      throw new Mq9Error(
        "no_responders",
        `${operation}: no mq9 broker answers on this NATS server`,
        { operation },
      );
    }
    return message.data;
  }

  #exchange(nats: NatsConnection, outgoing: Outgoing, deadline: number): Promise<Msg> {
    const { operation, subject, payload, headers, timeoutMs, signal, abandoned } = outgoing;
    return new Promise((resolve, reject) => {
      const token = String(++this.#next);
      let isAbandoned = false;
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
        this.#waiting.delete(token);
      };
      const fail = (error: Mq9Error): void => {
        end();
        reject(error);
      };
      const cancel = (): void => {
        signal?.removeEventListener("abort", cancel);
        if (abandoned === undefined) end();
        else isAbandoned = true;
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(
        () => {
          fail(
            new Mq9Error("timeout", `${operation}: no reply within ${String(timeoutMs)} ms`, {
              operation,
            }),
          );
        },
        Math.max(0, deadline - performance.now()),
      );
      this.#waiting.set(token, {
        fail,
        reply: (message) => {
          end();
          if (isAbandoned && abandoned !== undefined) this.#handleLate(abandoned(message.data));
          else resolve(message);
        },
      });
      signal?.addEventListener("abort", cancel);
      try {
        const options = { reply: `${this.#inbox}.${token}` };
        const names = Object.entries(headers);
        if (names.length > 0) {
          const natsHeader = natsHeaders();
          for (const [name, value] of names) natsHeader.set(name, value);
          nats.publish(subject, payload, { ...options, headers: natsHeader });
        } else {
          nats.publish(subject, payload, options);
        }
      } catch (error) {
        fail(closed(operation, error));
      }
    });
  }

  #handleLate(action: Promise<void>): void {
    const handled = action.finally(() => this.#late.delete(handled));
    this.#late.add(handled);
  }

  async #connected(
    operation: string,
    deadline: number,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<NatsConnection> {
    while (!this.#isClosed) {
      if (this.#injected?.isClosed() === true || this.#injected?.isDraining() === true) {
        throw new Mq9Error(
          "connection_closed",
          `${operation}: the NATS connection that was given is closed`,
          { operation },
        );
      }
      if (this.#nats !== undefined && this.#isReady && !this.#nats.isClosed()) return this.#nats;
      if (!this.#isReady) {
        await pause(deadline - performance.now(), { signal, until: this.#ready.promise });
      } else {
        // The NATS client has ended, which is about to be noticed.
        await pause(1, { signal });
      }
      if (!this.#isReady && !this.isClosed && performance.now() >= deadline) {
        throw new Mq9Error(
          "timeout",
          `${operation}: not connected to a server for ${String(timeoutMs)} ms; nothing was sent`,
          { operation },
        );
      }
    }
    throw new Mq9Error("connection_closed", `${operation}: the client is closed`, { operation });
  }

  async flush(timeoutMs: number): Promise<void> {
    if (!this.isConnected || this.#nats === undefined) return;
    // A connection that breaks now is no error: then there is nothing left to wait for.
    const flushed = this.#nats.flush().catch(() => undefined);
    await pause(timeoutMs, { until: flushed });
  }

  async settle(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.isListening && !this.isClosed && performance.now() < deadline) {
      await pause(5);
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#failWaiting("the client was closed before the reply came");
    this.#closing.abort(new Error("closed"));
    this.#ready.resolve();
    const nats = this.#nats;
    this.#nats = undefined;
    this.#status?.stop?.();
    if (nats !== undefined && !nats.isClosed()) {
      if (nats === this.#injected) this.#subscription?.unsubscribe();
      else await nats.close().catch(() => undefined);
    }
    await this.#supervisor;
  }

  // Connecting and reconnecting.

  async #connect(signal: AbortSignal | undefined): Promise<void> {
    const failures: string[] = [];
    let refused = false;
    let last: unknown;
    for (const [index, server] of [...this.#servers].entries()) {
      try {
        const nats = await this.#connectTo(server, signal);
        this.#attach(nats);
        this.#servers = [...this.#servers.slice(index), ...this.#servers.slice(0, index)];
        this.#addDiscovered(nats, server);
        return;
      } catch (error) {
        signal?.throwIfAborted();
        refused ||= isRefusal(error);
        failures.push(`${parseServer(server).shown}: ${why(error)}`);
        last = error;
      }
    }
    throw new Mq9Error("connection_closed", `could not connect to ${failures.join("; ")}`, {
      code: refused ? "unauthorized" : undefined,
      cause: last,
    });
  }

  async #connectTo(server: string, signal: AbortSignal | undefined): Promise<NatsConnection> {
    const settings = this.#settings;
    if (settings === undefined) throw new Error("there are no settings");
    const { url, user, password, token, isTls } = parseServer(server);
    const options: ConnectionOptions = {
      servers: [url],
      reconnect: false,
      maxReconnectAttempts: 0,
      noRandomize: true,
      ignoreClusterUpdates: true,
      timeout: settings.connectTimeoutMs,
      pingInterval: PING_INTERVAL_MS,
    };
    if (settings.name !== undefined) options.name = settings.name;
    const userName = settings.user ?? user;
    const userPassword = settings.password ?? password;
    const userToken = settings.token ?? token;
    if (userName !== undefined) options.user = userName;
    if (userPassword !== undefined) options.pass = userPassword;
    if (userToken !== undefined) options.token = userToken;
    if (settings.authenticator !== undefined) options.authenticator = settings.authenticator;
    if (settings.tls !== undefined) options.tls = settings.tls;
    else if (isTls) options.tls = {};
    const giveUp = new AbortController();
    const connecting = settings.transport(options, giveUp.signal);
    let hasAnswered = false;
    try {
      hasAnswered = await pause(settings.connectTimeoutMs, { signal, until: connecting });
    } finally {
      if (!hasAnswered) abandon(connecting, giveUp);
    }
    if (!hasAnswered) throw new Error("no answer in time");
    const nats = await connecting;
    if (this.#isClosed) {
      await nats.close();
      throw new Error("the client is closed");
    }
    return nats;
  }

  #attach(nats: NatsConnection): void {
    this.#inbox = createInbox();
    this.#subscription = nats.subscribe(`${this.#inbox}.*`, {
      callback: (error, message) => {
        if (error === null) {
          this.#waiting.get(message.subject.slice(this.#inbox.length + 1))?.reply(message);
        }
      },
    });
    this.#nats = nats;
    this.#setReady();
  }

  #setReady(): void {
    this.#isReady = true;
    this.#ready.resolve();
  }

  #setLost(): void {
    if (this.#isReady) this.#ready = deferred();
    this.#isReady = false;
    this.#failWaiting("the connection broke before the reply came");
  }

  #addDiscovered(nats: NatsConnection, server: string): void {
    const { scheme, credentials } = parseServer(server);
    for (const found of nats.info?.connect_urls ?? []) {
      const url = `${scheme}://${credentials}${found}`;
      if (!this.#servers.includes(url)) this.#servers.push(url);
    }
  }

  async #supervise(): Promise<void> {
    for (;;) {
      await this.#nats?.closed();
      if (this.#isClosed) return;
      this.#setLost();
      log.info("connection lost, reconnecting");
      await this.#reconnect();
    }
  }

  async #reconnect(): Promise<void> {
    const longest = this.#settings?.reconnectWaitMaxMs ?? 0;
    let wait = this.#settings?.reconnectWaitMs ?? 0;
    for (;;) {
      const jittered = Math.min(wait * (1 + Math.random() * JITTER), longest);
      await pause(jittered, { signal: this.#closing.signal }).catch(() => undefined);
      if (this.#isClosed) return;
      wait = Math.min(wait * 2, longest);
      // The server that was just lost comes last.
      const first = this.#servers.shift();
      if (first !== undefined) this.#servers.push(first);
      try {
        await this.#connect(this.#closing.signal);
        log.info(`connected again to ${this.url ?? "a server"}`);
        return;
      } catch (error) {
        if (!this.#closing.signal.aborted) log.info(why(error));
      }
    }
  }

  // A connection of somebody else reconnects by itself; nothing may be published meanwhile.
  async #follow(nats: NatsConnection): Promise<void> {
    const status = nats.status() as AsyncIterable<Status> & { stop?: () => void };
    this.#status = status;
    for await (const event of status) {
      if (this.#isClosed) return;
      if (event.type === "disconnect") this.#setLost();
      else if (event.type === "reconnect") this.#setReady();
      else if (event.type === "close") {
        this.#setLost();
        this.#ready.resolve();
      }
    }
  }

  #failWaiting(reason: string): void {
    for (const waiting of [...this.#waiting.values()]) {
      waiting.fail(new Mq9Error("connection_closed", reason));
    }
  }
}

function closed(operation: string, error: unknown): Mq9Error {
  return new Mq9Error("connection_closed", `${operation}: ${why(error)}`, {
    operation,
    cause: error,
  });
}

/** Closes what comes of an attempt to connect that nobody waits for any more. */
function abandon(connecting: Promise<NatsConnection>, giveUp: AbortController): void {
  giveUp.abort();
  connecting.then((nats) => nats.close()).catch(() => undefined);
}

function why(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return "no answer in time";
  return error.message || error.name;
}

function isRefusal(error: unknown): boolean {
  return (
    error instanceof Error &&
    (["AuthorizationError", "UserAuthenticationExpiredError"].includes(error.name) ||
      /authoriz|authentic/i.test(error.message))
  );
}
