/** The conformance adapter of the JavaScript SDK: JSON lines in, JSON lines out; see conformance/ADAPTERS.md. */
import { createInterface } from "node:readline";
import { connect as connectNats } from "@nats-io/transport-node";
import type { NatsConnection } from "@nats-io/transport-node";
import * as mq9 from "mq9";
import type { Client, JsonValue } from "mq9";
import { ConsumerRun, IterationRun, KeepAliveRun } from "./background.js";
import type { Background } from "./background.js";
import { NotUnderstood, argumentsOf, resultOf } from "./convert.js";
import type { Fields } from "./convert.js";
import { OPERATIONS, SPEC_VERSION } from "./dispatch.js";
import { mutateArguments, mutateError } from "./mutants.js";

/** A line of the runner. */
export interface AdapterRequest {
  readonly id: number;
  readonly op: string;
  readonly client?: string;
  readonly args?: Fields;
  readonly as?: string;
  readonly of?: string;
  readonly target?: number;
  readonly decode?: readonly string[];
  readonly delivery?: number;
  readonly outcome?: string;
  readonly msg_id?: string;
  readonly delay_ms?: number;
  readonly lease_ms?: number;
  readonly fail_error_hook?: boolean;
}

const FEATURES = ["consume", "iterate", "keep_alive", "existing_connection"];

/** An error of the SDK in the protocol's form; a call that was cancelled rejects with its signal's reason. */
export function errorFields(error: unknown, signal: AbortSignal | undefined): Fields {
  if (error instanceof mq9.Mq9Error) {
    const { kind, code, field, message } = error;
    const fields: Fields = { kind, message };
    if (code !== undefined) fields["code"] = code;
    if (field !== undefined) fields["field"] = field;
    return mutateError(fields);
  }
  if (signal?.aborted === true && error === signal.reason) {
    return { kind: "cancelled", message: "cancelled" };
  }
  return { kind: "handler", message: String(error) };
}

type Method = (...args: unknown[]) => Promise<unknown>;

/** Carries out requests side by side; each answer goes out as soon as it is there. */
export class Adapter {
  readonly #clients = new Map<string, Client>();
  readonly #connections = new Map<string, NatsConnection>();
  readonly #backgrounds = new Map<string, Background>();
  readonly #calls = new Map<number, { cancel: AbortController; ended: Promise<void> }>();

  /** Writes one line of the protocol. */
  write(line: Fields): void {
    process.stdout.write(`${mq9.stringifyJson(line)}\n`);
  }

  /** Reads requests until the end of the input, then finishes. */
  async run(): Promise<void> {
    for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
      const request = mq9.parseJson(line) as unknown as AdapterRequest;
      const cancel = new AbortController();
      // It is known before it begins: its first step may be asked to cancel another.
      const ended = Promise.resolve().then(() => this.#serve(request, cancel.signal));
      this.#calls.set(request.id, { cancel, ended });
    }
    const calls = [...this.#calls.values()];
    for (const call of calls) call.cancel.abort();
    await Promise.all(calls.map((call) => call.ended));
    for (const background of this.#backgrounds.values()) await background.cancel();
    for (const client of this.#clients.values()) await client.close();
  }

  async #serve(request: AdapterRequest, signal: AbortSignal): Promise<void> {
    let answer: Fields;
    try {
      answer = { ok: await this.#carryOut(request, signal) };
    } catch (error) {
      const fields = errorFields(error, signal);
      if (fields["kind"] !== "handler") answer = { error: fields };
      else {
        // A mistake here, or an error that the SDK lets out: red either way.
        if (!(error instanceof NotUnderstood)) console.error(error);
        answer = { harness_error: String(error) };
      }
    }
    this.#calls.delete(request.id);
    this.write({ id: request.id, ...answer });
  }

  async #carryOut(request: AdapterRequest, signal: AbortSignal): Promise<JsonValue> {
    if (OPERATIONS[request.op] !== undefined) return this.#operation(request, signal);
    if (request.of !== undefined && request.op !== "cancel") {
      const background = this.#backgrounds.get(request.of);
      if (background === undefined) throw new NotUnderstood(`nothing runs as "${request.of}"`);
      return background.command(request);
    }
    switch (request.op) {
      case "hello":
        return { sdk: "js", sdk_version: mq9.VERSION, spec: SPEC_VERSION, features: FEATURES };
      case "connect":
        return this.#connect(request, signal);
      case "close":
        await this.#client(request).close();
        return {};
      case "connection_open":
        return this.#connectionOpen(request);
      case "cancel":
        return this.#cancel(request);
      case "consume":
        return this.#begin(request, new ConsumerRun(this, this.#client(request), request));
      case "iterate":
        return this.#begin(request, new IterationRun(this.#client(request), request));
      case "agent_keep_alive":
        return this.#begin(request, await KeepAliveRun.start(this.#client(request), request));
      default:
        throw new NotUnderstood(`there is no operation "${request.op}"`);
    }
  }

  #begin(request: AdapterRequest, background: Background): JsonValue {
    this.#backgrounds.set(request.as ?? "", background);
    return {};
  }

  #client(request: AdapterRequest): Client {
    const client = this.#clients.get(request.client ?? "");
    if (client === undefined) {
      throw new NotUnderstood(`client "${String(request.client)}" was never connected`);
    }
    return client;
  }

  async #operation(request: AdapterRequest, signal: AbortSignal): Promise<JsonValue> {
    const operation = OPERATIONS[request.op];
    if (operation === undefined) throw new NotUnderstood(`there is no operation "${request.op}"`);
    const client = this.#client(request);
    const args = mutateArguments(
      operation.method,
      argumentsOf(request.args ?? {}, operation.parameters),
    );
    const { required, method } = operation;
    const options = Object.fromEntries(
      Object.entries(args).filter(([name]) => !required.includes(name)),
    );
    const call = (client as unknown as Record<string, Method>)[method];
    if (call === undefined) throw new NotUnderstood(`the client has no ${method}`);
    const value = await call.call(client, ...required.map((name) => args[name]), {
      ...options,
      signal,
    });
    return resultOf(value, operation.result, request.decode ?? []);
  }

  async #connect(request: AdapterRequest, signal: AbortSignal): Promise<JsonValue> {
    const { servers, existing, ...given } = request.args ?? {};
    const name = request.client ?? "";
    const options: Record<string, unknown> = { signal };
    for (const [key, value] of Object.entries(given)) {
      options[key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())] = value;
    }
    if (existing === true) {
      const connection = await connectNats({ servers: servers as string | string[] });
      this.#connections.set(name, connection);
      options["nats"] = connection;
    }
    const client = await mq9.connect(servers as string | string[], options);
    this.#clients.set(name, client);
    return {};
  }

  async #connectionOpen(request: AdapterRequest): Promise<JsonValue> {
    const connection = this.#connections.get(request.client ?? "");
    if (connection === undefined) throw new NotUnderstood("there is no connection of that name");
    const isOpen = !connection.isClosed();
    if (isOpen) await connection.flush();
    await connection.close();
    return isOpen;
  }

  async #cancel(request: AdapterRequest): Promise<JsonValue> {
    if (request.of !== undefined) {
      await this.#backgrounds.get(request.of)?.cancel();
    } else {
      const call = this.#calls.get(request.target ?? -1);
      call?.cancel.abort();
      await call?.ended;
    }
    return { ended: "cancelled" };
  }
}
