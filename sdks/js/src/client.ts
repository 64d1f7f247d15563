import type { ConnectionOptions, NatsConnection, TlsOptions } from "@nats-io/nats-core";
import { Connection } from "./connection.js";
import type { Carrier } from "./connection.js";
import { Consumer } from "./consumer.js";
import type { ErrorHook, Handler } from "./consumer.js";
import * as decode from "./decode.js";
import * as encode from "./encode.js";
import { Mq9Error, invalid } from "./error.js";
import * as constants from "./generated/constants.js";
import * as decoders from "./generated/decoders.js";
import * as operations from "./generated/operations.js";
import type { AgentRegisterOptions, ConsumeOptions } from "./generated/operations.js";
import * as validators from "./generated/validators.js";
import { AgentKeepAlive } from "./keep-alive.js";
import type { JsonMembers } from "./json.js";
import { log } from "./log.js";
import type { CallOptions, Operation } from "./operation.js";
import type { Context } from "./platform-types.js";
import { checkRules, isGiven, makeRequest } from "./request.js";
import type { Arguments, Request } from "./request.js";
import { serverList } from "./servers.js";
import { pause } from "./timing.js";

/** Options of `connect`. */
export interface ConnectOptions {
  /** A name that the server shows for this connection. */
  readonly name?: string | undefined;
  /** User name; one in the URL counts where there is none here. */
  readonly user?: string | undefined;
  /** Password of the user. */
  readonly password?: string | undefined;
  /** Authentication token. */
  readonly token?: string | undefined;
  /** A credentials file with a JWT and an NKey seed. */
  readonly credentialsFile?: string | undefined;
  /** True, or settings of the NATS client, to insist on TLS; so does a URL with `tls://`. */
  readonly tls?: boolean | TlsOptions | undefined;
  /** Milliseconds that a request waits for its reply, unless a call says otherwise. Default: 5000. */
  readonly timeoutMs?: number | undefined;
  /** Milliseconds that connecting to one server may take. Default: 5000. */
  readonly connectTimeoutMs?: number | undefined;
  /** The first pause before a reconnect, in milliseconds; doubles with jitter. Default: 250. */
  readonly reconnectWaitMs?: number | undefined;
  /** The longest pause before a reconnect, in milliseconds. Default: 10000. */
  readonly reconnectWaitMaxMs?: number | undefined;
  /**
   * An existing connection of the NATS client to use instead; it stays open when the client is closed. The options
   * above but `timeoutMs` have no meaning then.
   */
  readonly nats?: NatsConnection | undefined;
  /** What makes NATS connections: by default that of Node, or `wsconnect` in browsers and for URLs with `ws://`. */
  readonly transport?: ((options: ConnectionOptions) => Promise<NatsConnection>) | undefined;
  /** Cancels connecting. */
  readonly signal?: AbortSignal | undefined;
}

/** A call on behalf of the client itself, which may still be made while it closes. */
export const INTERNAL = Symbol("mq9 internal");

interface InternalCallOptions extends CallOptions {
  readonly [INTERNAL]?: boolean;
}

/** What is ended before the client closes. */
export interface Part {
  /** @internal */
  end(): Promise<void>;
}

/**
 * Connects to one of the servers and reconnects for ever.
 *
 * While the connection is down, a call waits for it as long as its timeout allows and then fails with kind `timeout`;
 * nothing was sent then. A call that was waiting for its reply when the connection broke fails with kind
 * `connection_closed` at once, unless it may be tried again.
 *
 * @param servers - Server URLs: one, a list, or one string with commas between. Each is tried once, in this order.
 * @param options - What may be left out.
 * @returns A connected client: `await using client = await connect(url)`, or call `close()`.
 * @throws Mq9Error of kind `invalid_argument`, or `connection_closed` if no server could be reached; with code
 *   `unauthorized` if one refused the credentials.
 */
export async function connect(
  servers: string | readonly string[] = constants.CONNECT_SERVERS,
  options: ConnectOptions = {},
): Promise<Client> {
  const { credentialsFile, nats, signal } = options;
  const time = (field: string, value: number | undefined, otherwise: number): number =>
    encode.milliseconds(field, value ?? otherwise);
  const timeoutMs = time("timeout", options.timeoutMs, constants.CONNECT_TIMEOUT_MS);
  const { platform } = await import("#platform");
  let connection: Connection;
  if (nats !== undefined) {
    connection = new Connection(undefined, nats);
  } else {
    connection = new Connection({
      servers: serverList(servers),
      name: options.name,
      user: options.user,
      password: options.password,
      token: options.token,
      authenticator:
        credentialsFile === undefined
          ? undefined
          : await platform.credentials(credentialsFile).catch((error: unknown) => {
              throw invalid("credentials_file", String(error));
            }),
      tls: options.tls === true ? {} : options.tls === false ? undefined : options.tls,
      connectTimeoutMs: time(
        "connect_timeout",
        options.connectTimeoutMs,
        constants.CONNECT_CONNECT_TIMEOUT_MS,
      ),
      reconnectWaitMs: time(
        "reconnect_wait",
        options.reconnectWaitMs,
        constants.CONNECT_RECONNECT_WAIT_MS,
      ),
      reconnectWaitMaxMs: time(
        "reconnect_wait_max",
        options.reconnectWaitMaxMs,
        constants.CONNECT_RECONNECT_WAIT_MAX_MS,
      ),
      transport: options.transport ?? platform.transport,
    });
  }
  await connection.open(signal);
  return new Client(connection, timeoutMs, platform.makeContext());
}

/** A connection to mq9, made by `connect`. */
export class Client extends operations.Operations {
  /** @internal */
  readonly context: Context<Consumer>;
  /** @internal */
  readonly parts = new Set<Part>();
  readonly #connection: Carrier;
  readonly #timeoutMs: number;
  readonly #calls = new Set<Promise<unknown>>();
  readonly #background = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;
  #isClosed = false;

  /** Made by `connect`. @internal */
  constructor(connection: Carrier, timeoutMs: number, context: Context<Consumer>) {
    super();
    this.#connection = connection;
    this.#timeoutMs = timeoutMs;
    this.context = context;
  }

  /** Whether it was closed; calls fail then. */
  get isClosed(): boolean {
    return this.#isClosed || this.#connection.isClosed;
  }

  /** Whether there is a connection to a server right now. */
  get isConnected(): boolean {
    return this.#connection.isConnected;
  }

  /** The server that it is connected to, without credentials; undefined while there is none. */
  get connectedUrl(): string | undefined {
    return this.#connection.url;
  }

  /**
   * Ends consumers and keep-alives, waits for calls in flight and closes the connection.
   *
   * It waits for handlers that run, and for at most the client's timeout for calls; what takes longer fails with kind
   * `connection_closed`. A NATS connection that was given to `connect` stays open. Closing twice is fine.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`, which drains. */
  drain(): Promise<void> {
    return this.close();
  }

  /** Closes at the end of a block: `await using client = await connect()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const connection = this.#connection;
    try {
      for (const part of [...this.parts]) {
        await part.end().catch((error: unknown) => {
          log.warn("while closing:", String(error));
        });
      }
      this.#isClosed = true;
      await this.#settled([...this.#calls, ...this.#background]);
      if (connection.isListening) {
        // Cancelled FETCHes that still wait. The end of our own connection ends them at the broker too; on somebody
        // else's they have to be waited for. What they have brought until now is given back.
        if (connection.isInjected) {
          await connection.settle(this.#timeoutMs + constants.CONSUME_MAX_WAIT_MS);
        } else {
          await connection.flush(this.#timeoutMs);
        }
        await this.#settled([...this.#background]);
      }
    } finally {
      this.#isClosed = true;
      await connection.close();
    }
  }

  async #settled(waits: readonly Promise<unknown>[]): Promise<void> {
    if (waits.length > 0) await pause(this.#timeoutMs, { until: Promise.allSettled(waits) });
  }

  // What the generated operations stand on.

  /** @internal */
  protected carryOut(
    operation: Operation,
    args: Arguments,
    options: InternalCallOptions,
  ): Promise<void>;
  /** @internal */
  protected carryOut<T>(
    operation: Operation,
    args: Arguments,
    options: InternalCallOptions,
    decoder: (fields: JsonMembers) => T,
  ): Promise<T>;
  protected async carryOut<T>(
    operation: Operation,
    args: Arguments,
    options: InternalCallOptions,
    decoder?: (fields: JsonMembers) => T,
  ): Promise<T | undefined> {
    const request = makeRequest(operation, { ...options, ...args });
    const timeoutMs =
      options.timeoutMs === undefined
        ? this.#timeoutMs
        : encode.milliseconds("timeout", options.timeoutMs);
    options.signal?.throwIfAborted();
    if (this.#isClosed && options[INTERNAL] !== true) {
      throw new Mq9Error("connection_closed", `${operation.name}: the client is closed`, {
        operation: operation.name,
      });
    }
    const call = this.#attempts(operation, request, timeoutMs + request.waitMs, options.signal);
    this.#calls.add(call);
    try {
      const fields = await call;
      return decoder === undefined ? undefined : decode.result(operation.name, fields, decoder);
    } catch (error) {
      throw error instanceof Mq9Error ? named(error, operation.name) : error;
    } finally {
      this.#calls.delete(call);
    }
  }

  async #attempts(
    operation: Operation,
    request: Request,
    wholeMs: number,
    signal: AbortSignal | undefined,
  ): Promise<JsonMembers> {
    const giveUp = performance.now() + (operation.giveUpMs ?? Infinity);
    const attempts = request.repeatable ? constants.RETRY_ATTEMPTS : 1;
    const abandoned = request.lease && this.#giveBackLate(...request.lease);
    let pauseMs = constants.RETRY_PAUSE_MS;
    let timeoutMs = wholeMs;
    for (let attempt = 1; ; attempt++) {
      try {
        const { subject, payload, headers } = request;
        const data = await this.#connection.request({
          operation: operation.name,
          subject,
          payload,
          headers,
          timeoutMs,
          signal,
          abandoned,
        });
        return decode.reply(operation.name, data);
      } catch (error) {
        if (!(error instanceof Mq9Error)) throw error;
        const again =
          operation.retriesOn.includes(error.kind) ||
          (error.kind === "server" && operation.retriesOn.includes(error.code ?? ""));
        if (!again || attempt === attempts || this.#connection.isClosed) throw error;
        const wait = pauseMs * (1 + Math.random() * constants.RETRY_JITTER);
        if (performance.now() + wait >= giveUp) throw error;
        log.debug(`${operation.name}: attempt ${String(attempt)} failed, trying again:`, error);
        await pause(wait, { signal });
      }
      pauseMs *= constants.RETRY_PAUSE_FACTOR;
      timeoutMs = Math.min(timeoutMs, giveUp - performance.now());
    }
  }

  /** What to do with the reply of a cancelled FETCH under a lease: its messages go back. */
  #giveBackLate(mailAddress: string, groupName: string): (data: Uint8Array) => Promise<void> {
    return async (data) => {
      try {
        const fields = decode.reply("msg.fetch", data);
        const { leaseId, messages } = decode.result("msg.fetch", fields, decoders.msgFetch);
        if (leaseId === undefined || leaseId === "" || messages.length === 0) return;
        const ids = messages.map((message) => message.msgId);
        await this.nack(mailAddress, groupName, ids, this.internal({ leaseId }));
      } catch (error) {
        log.warn("messages that a cancelled FETCH brought could not be given back:", String(error));
      }
    };
  }

  /** Options of a call that may still be made while the client closes. @internal */
  internal<T extends object>(options: T): T {
    return { ...options, [INTERNAL]: true };
  }

  /** Keeps the client from closing until this has ended. @internal */
  inBackground(action: Promise<void>): Promise<void> {
    const ended = action
      .catch((error: unknown) => {
        log.warn("in the background:", String(error));
      })
      .finally(() => this.#background.delete(ended));
    this.#background.add(ended);
    return ended;
  }

  /** @internal */
  protected consumer(
    mailAddress: string,
    groupName: string,
    handler: Handler | undefined,
    options: ConsumeOptions,
  ): Consumer {
    const args = { ...options, mailAddress, groupName } as Arguments;
    const settings: Record<string, unknown> = {};
    const start: Record<string, unknown> = {};
    const { parameters, rules } = operations.CONSUME;
    for (const parameter of parameters) {
      const { name, argument, rule, untilFirstFetch } = parameter;
      const value = args[argument] ?? parameter.default;
      if (untilFirstFetch) {
        const omitted = parameter.default === false ? { omitted: false as const } : {};
        if (isGiven(omitted, value)) start[argument] = rule(name, value);
      } else {
        settings[argument] = rule(name, value);
      }
    }
    checkRules(rules, args, parameters);
    if (options.timeoutMs !== undefined) encode.milliseconds("timeout", options.timeoutMs);
    if (handler !== undefined && typeof handler !== "function") {
      throw invalid("handler", `must be a function, not ${typeof handler}`);
    }
    if (this.#isClosed || this.#closing !== undefined) {
      throw new Mq9Error("connection_closed", "consume: the client is closed");
    }
    return new Consumer(this, {
      mailAddress,
      groupName,
      handler,
      numMsgs: Number(settings["numMsgs"]),
      maxWaitMs: Number(settings["maxWaitMs"]),
      leaseMs: Number(settings["leaseMs"]),
      concurrency: Number(settings["concurrency"]),
      autoAck: settings["autoAck"] === true,
      start,
      onError: options.onError,
      timeoutMs: options.timeoutMs,
      signal: options.signal,
    });
  }

  /**
   * Keeps an agent in the registry: registers it, reports it regularly, registers it again when the registry has
   * forgotten it, and unregisters it when the helper is stopped or the client is closed.
   *
   * Requirements: KEEPALIVE-001, KEEPALIVE-002.
   *
   * @param name - The agent's name; an agent of this name is replaced.
   * @param options - As in `agentRegister`; `ttl` is the helper's own affair.
   * @returns The helper, when the agent is registered: `await using helper = await client.agentKeepAlive(...)`.
   * @throws Mq9Error if it could not be registered.
   */
  async agentKeepAlive(
    name: string,
    options: Omit<AgentRegisterOptions, "ttl"> = {},
  ): Promise<AgentKeepAlive> {
    validators.AGENT_NAME("name", name);
    const helper = new AgentKeepAlive(this, name, options);
    await helper.start(options.signal);
    return helper;
  }
}

function named(error: Mq9Error, operation: string): Mq9Error {
  if (error.operation !== undefined) return error;
  const { kind, code, field, cause } = error;
  const message = error.message.startsWith(operation)
    ? error.message
    : `${operation}: ${error.message}`;
  return new Mq9Error(kind, message, { code, field, operation, cause });
}

export type { ErrorHook, Handler };
