/** What the tests stand on: scripted connections and mailboxes, real brokers and servers. */
import { AsyncLocalStorage } from "node:async_hooks";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { Client } from "../src/client.js";
import type { Carrier, Outgoing } from "../src/connection.js";
import type { Consumer } from "../src/consumer.js";
import { Mq9Error } from "../src/error.js";
import type { ErrorKind } from "../src/generated/errors.js";
import { parseJson, stringifyJson } from "../src/json.js";
import { pause } from "../src/timing.js";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const BIN = `${ROOT}.venv/bin/`;

/** Waits until something holds. */
export async function until(
  condition: () => unknown,
  what = "it",
  milliseconds = 30_000,
): Promise<void> {
  const deadline = performance.now() + milliseconds;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what} never happened`);
    await pause(2);
  }
}

/** The error that something rejects with. */
export async function failure(action: Promise<unknown>): Promise<Mq9Error> {
  try {
    await action;
  } catch (error) {
    if (error instanceof Mq9Error) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

/** A request as the client sent it. */
export interface Sent {
  readonly operation: string;
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** The body; an empty one means no members. */
  readonly json: Record<string, unknown>;
}

export type Answer = Uint8Array | Error | Record<string, unknown>;
export type Script = Answer | ((request: Sent) => Answer | Promise<Answer>);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Answers requests by a script instead of sending them. */
export class FakeCarrier implements Carrier {
  script: Script;
  readonly requests: Sent[] = [];
  readonly #late = new Set<Promise<void>>();
  isClosed = false;
  isConnected = true;
  url = undefined;
  isInjected = false;

  constructor(script: Script = { error: "" }) {
    this.script = script;
  }

  get isListening(): boolean {
    return this.#late.size > 0;
  }

  async request(outgoing: Outgoing): Promise<Uint8Array> {
    const { signal, payload, abandoned } = outgoing;
    signal?.throwIfAborted();
    const text = decoder.decode(payload);
    const request: Sent = {
      ...outgoing,
      get json() {
        return parseJson(text === "" ? "{}" : text) as unknown as Record<string, unknown>;
      },
    };
    this.requests.push(request);
    const answer = this.#answer(request);
    answer.catch(() => undefined);
    await pause(2 ** 30, { signal, until: answer }).catch((error: unknown) => {
      if (abandoned !== undefined) {
        const late = answer.then(abandoned, () => undefined).finally(() => this.#late.delete(late));
        this.#late.add(late);
      }
      throw error;
    });
    return answer;
  }

  async #answer(request: Sent): Promise<Uint8Array> {
    const { script } = this;
    const answer = typeof script === "function" ? await script(request) : script;
    if (answer instanceof Error) throw answer;
    return answer instanceof Uint8Array ? answer : encoder.encode(stringifyJson(answer));
  }

  flush(): Promise<void> {
    return this.settle();
  }

  async settle(): Promise<void> {
    await Promise.all(this.#late);
  }

  close(): Promise<void> {
    this.isClosed = true;
    return Promise.resolve();
  }

  /** The requests of one operation. */
  of(operation: string): Sent[] {
    return this.requests.filter((request) => request.operation === operation);
  }
}

/** A client on a scripted connection. */
export function fake(script?: Script, timeoutMs = 5000): { client: Client; carrier: FakeCarrier } {
  const carrier = new FakeCarrier(script);
  const client = new Client(carrier, timeoutMs, new AsyncLocalStorage<Consumer>());
  return { client, carrier };
}

/** How the connection fails. */
export function status(kind: ErrorKind): Mq9Error {
  return new Mq9Error(kind, `told to fail with ${kind}`);
}

/** A mailbox with leases and no clock: what is given back comes again, what is confirmed does not. */
export class FakeMailbox {
  readonly messages: number[];
  readonly leased = new Map<number, string>();
  readonly confirmed = new Set<number>();
  readonly counts = new Map<number, number>();
  readonly failures = new Map<string, Answer[]>();
  fetches = 0;
  #arrived: (() => void)[] = [];

  constructor(count = 0) {
    this.messages = Array.from({ length: count }, (_, index) => index);
  }

  add(count = 1): void {
    for (let added = 0; added < count; added++) this.messages.push(this.messages.length);
    this.#wake();
  }

  fail(operation: string, ...answers: Answer[]): void {
    this.failures.set(operation, [...(this.failures.get(operation) ?? []), ...answers]);
  }

  #wake(): void {
    for (const wake of this.#arrived.splice(0)) wake();
  }

  readonly answer = async (request: Sent): Promise<Answer> => {
    const planned = this.failures.get(request.operation)?.shift();
    if (planned !== undefined) return planned;
    const body = request.json;
    if (request.operation === "msg.fetch") return this.#fetch(body);
    const ids = (body["msg_ids"] ?? [body["msg_id"]]) as number[];
    if (request.operation === "msg.ack") {
      for (const id of ids) {
        this.confirmed.add(id);
        this.leased.delete(id);
      }
    } else if (request.operation === "msg.nack") {
      for (const id of ids) if (this.leased.get(id) === body["lease_id"]) this.leased.delete(id);
      this.#wake();
    } else if (request.operation === "msg.renew") {
      return { error: "", renewed: ids.filter((id) => this.leased.get(id) === body["lease_id"]) };
    }
    return { error: "" };
  };

  async #fetch(body: Record<string, unknown>): Promise<Answer> {
    const leaseId = `L${String(++this.fetches)}`;
    const most = (body["config"] as { num_msgs: number }).num_msgs;
    for (;;) {
      const ready = this.messages
        .filter((id) => !this.confirmed.has(id) && !this.leased.has(id))
        .slice(0, most);
      if (ready.length === 0) {
        await new Promise<void>((resolve) => this.#arrived.push(resolve));
        continue;
      }
      const messages = ready.map((id) => {
        this.leased.set(id, leaseId);
        const count = (this.counts.get(id) ?? 0) + 1;
        this.counts.set(id, count);
        const payload = Buffer.from(String(id)).toString("base64");
        return { msg_id: id, payload, encoding: "base64", delivery_count: count };
      });
      return { error: "", messages, lease_id: leaseId };
    }
  }
}

async function line(
  process: ChildProcess,
  pattern: RegExp,
  stream: "stdout" | "stderr",
): Promise<string> {
  const output = process[stream];
  if (output === null) throw new Error("there is no output");
  const seen: string[] = [];
  if (stream === "stdout") process.stderr?.on("data", (data) => seen.push(String(data)));
  const reader = createInterface({ input: output });
  for await (const text of reader) {
    seen.push(text);
    if (pattern.test(text)) {
      reader.close();
      output.resume();
      return text;
    }
  }
  throw new Error(`the process did not start: ${seen.join(" | ")}`);
}

/** A process that ends with the test. */
class Running {
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;

  constructor(process: ChildProcess) {
    this.#process = process;
    this.#exited = new Promise((resolve) => process.once("exit", resolve));
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    this.#process.kill(signal);
    const ended = await pause(15_000, { until: this.#exited });
    if (!ended) this.#process.kill("SIGKILL");
  }
}

/** The reference broker in a process of its own. */
export class Broker extends Running {
  readonly url: string;
  readonly http: string;

  private constructor(process: ChildProcess, ready: string) {
    super(process);
    this.url = /nats=(\S+)/.exec(ready)?.[1] ?? "";
    this.http = /http=(\S+)/.exec(ready)?.[1] ?? "";
  }

  static async start(
    options: { port?: number; clock?: boolean; arguments?: readonly string[] } = {},
  ): Promise<Broker> {
    const { port = 0, clock = false } = options;
    const args = ["serve", "--listen", `127.0.0.1:${String(port)}`, "--http", "127.0.0.1:0"];
    const more = options.arguments ?? ["--store", "memory"];
    const process = spawn(`${BIN}mq9-broker`, [
      ...args,
      ...more,
      ...(clock ? ["--test-clock"] : []),
    ]);
    return new Broker(process, await line(process, /ready/, "stdout"));
  }

  get port(): number {
    return Number(this.url.split(":").at(-1));
  }

  /** Moves the broker's clock. */
  async advance(milliseconds: number): Promise<void> {
    const body = JSON.stringify({ advance_ms: milliseconds });
    const response = await fetch(`${this.http}/clock`, { method: "POST", body });
    if (!response.ok) throw new Error(`the clock answers ${String(response.status)}`);
  }
}

/** A real NATS server. */
export class NatsServer extends Running {
  readonly port: number;

  private constructor(process: ChildProcess, port: number) {
    super(process);
    this.port = port;
  }

  static async start(...args: readonly string[]): Promise<NatsServer> {
    const port = await freePort();
    const all = ["-a", "127.0.0.1", "-p", String(port), ...args];
    const process = spawn(`${BIN}nats-server`, all);
    await line(process, /Server is ready/, "stderr");
    return new NatsServer(process, port);
  }
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function listen(server: Server, port = 0): Promise<number> {
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => {
      resolve((server.address() as AddressInfo).port);
    });
  });
}

/** A NATS server by script: says INFO, answers PING, and calls `onPublish` with each request. */
export class Peer {
  readonly connects: Record<string, unknown>[] = [];
  readonly published: { subject: string; reply: string }[] = [];
  readonly sockets = new Set<Socket>();
  onPublish: (socket: Socket, subject: string, reply: string) => void = () => undefined;
  readonly #server: Server;
  port = 0;

  constructor(info: Record<string, unknown> = {}) {
    this.#server = createServer((socket) => {
      this.sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => this.sockets.delete(socket));
      const all = {
        server_id: "x",
        version: "2.10.0",
        max_payload: 1048576,
        headers: true,
        proto: 1,
      };
      socket.write(`INFO ${JSON.stringify({ ...all, ...info })}\r\n`);
      let rest = "";
      socket.on("data", (data) => {
        rest += data.toString("latin1");
        rest = this.#read(socket, rest);
      });
    });
  }

  /** One that says nothing at all. */
  static silent(): Peer {
    const peer = new Peer();
    peer.#server.removeAllListeners("connection");
    peer.#server.on("connection", (socket) => {
      peer.sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => peer.sockets.delete(socket));
      socket.resume();
    });
    return peer;
  }

  async start(port = 0): Promise<this> {
    this.port = await listen(this.#server, port);
    return this;
  }

  get url(): string {
    return `nats://127.0.0.1:${String(this.port)}`;
  }

  /** Breaks all connections. */
  breakOff(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  stop(): Promise<unknown> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.breakOff();
    this.#server.on("connection", (socket) => socket.destroy());
    return closed;
  }

  #read(socket: Socket, data: string): string {
    for (;;) {
      const end = data.indexOf("\r\n");
      if (end < 0) return data;
      const [verb = "", ...words] = data.slice(0, end).split(" ");
      if (verb === "PUB" || verb === "HPUB") {
        const size = Number(words.at(-1));
        if (data.length < end + size + 4) return data;
        data = data.slice(end + size + 4);
        const [subject = "", reply = ""] = words;
        this.published.push({ subject, reply });
        this.onPublish(socket, subject, reply);
        continue;
      }
      if (verb === "CONNECT") {
        this.connects.push(JSON.parse(words.join(" ")) as Record<string, unknown>);
      } else if (verb === "PING") socket.write("PONG\r\n");
      data = data.slice(end + 2);
    }
  }
}
