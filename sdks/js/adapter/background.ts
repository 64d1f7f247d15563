/** What goes on between requests: consumers with a handler, loops, keep-alives. */
import type { AgentKeepAlive, Client, Consumer, ConsumeOptions, JsonValue, Message } from "mq9";
import { errorFields } from "./adapter.js";
import type { Adapter, AdapterRequest } from "./adapter.js";
import { NotUnderstood, argumentsOf, objectOf } from "./convert.js";
import type { Fields } from "./convert.js";
import { CONSUME, OPERATIONS } from "./dispatch.js";
import { isMutant } from "./mutants.js";

/** Something that was started and can be told what to do. */
export interface Background {
  command(request: AdapterRequest): Promise<JsonValue>;
  cancel(): Promise<void>;
}

interface ConsumeArguments {
  readonly mailAddress: string;
  readonly groupName: string;
  readonly options: ConsumeOptions;
}

function consumeArguments(request: AdapterRequest): ConsumeArguments {
  const { mailAddress, groupName, ...options } = argumentsOf(request.args ?? {}, CONSUME);
  return { mailAddress, groupName, options } as ConsumeArguments;
}

const ignore = (): undefined => undefined;

/** A consumer with a handler. Every handler waits for the runner to say how it ends. */
export class ConsumerRun implements Background {
  readonly #adapter: Adapter;
  readonly #label: string;
  readonly #failErrorHook: boolean;
  readonly #consumer: Consumer;
  readonly #cancelling = new AbortController();
  readonly #outcomes = new Map<number, (outcome: string) => void>();
  readonly #ended: Promise<void>;
  #deliveries = 0;

  constructor(adapter: Adapter, client: Client, request: AdapterRequest) {
    this.#adapter = adapter;
    this.#label = request.as ?? "";
    this.#failErrorHook = request.fail_error_hook === true;
    const { mailAddress, groupName, options } = consumeArguments(request);
    this.#consumer = client.consume(mailAddress, groupName, this.#handle, {
      ...options,
      onError: this.#failed,
      signal: this.#cancelling.signal,
    });
    this.#ended = this.#wait();
  }

  readonly #handle = async (message: Message, signal: AbortSignal): Promise<void> => {
    const delivery = ++this.#deliveries;
    const outcome = new Promise<string>((resolve, reject) => {
      this.#outcomes.set(delivery, resolve);
      signal.addEventListener("abort", () => {
        reject(signal.reason as Error);
      });
    });
    this.#adapter.write({
      event: "message",
      of: this.#label,
      delivery,
      message: objectOf(message, "message", []),
    });
    const how = await outcome;
    if (how === "fail" && !isMutant("failure-swallowed")) {
      throw new Error("the runner said that this handler fails");
    }
    if (how === "stop") await this.#consumer.stop();
  };

  readonly #failed = (error: unknown, message: Message | undefined): void => {
    const fields = errorFields(error, this.#cancelling.signal);
    if (message !== undefined) fields["msg_id"] = String(message.msgId);
    this.#adapter.write({ event: "error", of: this.#label, error: fields });
    if (this.#failErrorHook) throw new Error("the runner said that the error hook fails");
  };

  async #wait(): Promise<void> {
    const line: Fields = { event: "ended", of: this.#label, how: "stopped" };
    try {
      await this.#consumer.done;
    } catch (error) {
      if (this.#cancelling.signal.aborted) line["how"] = "cancelled";
      else Object.assign(line, { how: "failed", error: errorFields(error, undefined) });
    }
    this.#adapter.write(line);
  }

  async command(request: AdapterRequest): Promise<JsonValue> {
    if (request.op === "finish") {
      const delivery = request.delivery ?? 0;
      this.#outcomes.get(delivery)?.(request.outcome ?? "");
      this.#outcomes.delete(delivery);
      return {};
    }
    if (request.op !== "stop") throw new NotUnderstood(`a consumer has no "${request.op}"`);
    if (isMutant("stop-does-not-wait")) void this.#consumer.stop();
    else await this.#consumer.stop();
    return {};
  }

  async cancel(): Promise<void> {
    this.#cancelling.abort();
    await this.#ended;
  }
}

type Asked = (message: JsonValue) => void;

/** A `for await` whose body asks the runner after each message whether to go on. */
export class IterationRun implements Background {
  readonly #consumer: Consumer;
  readonly #messages = new Map<string, Message>();
  readonly #cancelling = new AbortController();
  readonly #wanted: (Asked | "leave")[] = [];
  #wake: () => void = ignore;
  #loop: Promise<void> | undefined;

  constructor(client: Client, request: AdapterRequest) {
    const { mailAddress, groupName, options } = consumeArguments(request);
    const { signal } = this.#cancelling;
    this.#consumer = client.consume(mailAddress, groupName, { ...options, signal });
  }

  async #next(): Promise<Asked | "leave"> {
    const { signal } = this.#cancelling;
    for (;;) {
      signal.throwIfAborted();
      const wanted = this.#wanted.shift();
      if (wanted !== undefined) return wanted;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async #iterate(): Promise<void> {
    let asked = await this.#next();
    if (asked === "leave") return;
    for await (const message of this.#consumer) {
      this.#messages.set(String(message.msgId), message);
      asked(objectOf(message, "message", []));
      asked = await this.#next();
      if (asked === "leave") break;
    }
    // The loop has ended, so there is no message for who asked last.
    if (asked !== "leave") asked(null);
  }

  #want(wanted: Asked | "leave"): void {
    this.#wanted.push(wanted);
    this.#wake();
  }

  async command(request: AdapterRequest): Promise<JsonValue> {
    if (request.op === "next") return this.#askForNext();
    if (request.op === "stop") {
      await this.#consumer.stop();
      return {};
    }
    if (request.op === "leave") {
      if (this.#loop === undefined) await this.#consumer.stop();
      this.#want("leave");
      await this.#loop?.catch(ignore);
      return {};
    }
    const message = this.#messages.get(request.msg_id ?? "");
    if (message === undefined)
      throw new NotUnderstood(`there is no message ${String(request.msg_id)}`);
    const { delay_ms: delayMs, lease_ms: leaseMs } = request;
    if (request.op === "message_ack") await message.ack();
    else if (request.op === "message_nack") await message.nack({ delayMs });
    else if (request.op === "message_renew") return await message.renew({ leaseMs });
    else throw new NotUnderstood(`an iteration has no "${request.op}"`);
    return {};
  }

  async #askForNext(): Promise<JsonValue> {
    const answer = new Promise<JsonValue>((resolve) => {
      this.#want(resolve);
    });
    this.#loop ??= this.#iterate();
    this.#loop.catch(ignore);
    return Promise.race([answer, this.#loop.then(() => null)]);
  }

  async cancel(): Promise<void> {
    this.#cancelling.abort();
    this.#wake();
    if (this.#loop === undefined) await this.#consumer.stop();
    else await this.#loop.catch(ignore);
  }
}

/** An agent that stays registered until it is stopped. */
export class KeepAliveRun implements Background {
  readonly #helper: AgentKeepAlive;

  private constructor(helper: AgentKeepAlive) {
    this.#helper = helper;
  }

  static async start(client: Client, request: AdapterRequest): Promise<KeepAliveRun> {
    const parameters = OPERATIONS["agent_register"]?.parameters ?? {};
    const { name, ...options } = argumentsOf(request.args ?? {}, parameters);
    return new KeepAliveRun(await client.agentKeepAlive(name as string, options));
  }

  async command(request: AdapterRequest): Promise<JsonValue> {
    if (request.op !== "stop") throw new NotUnderstood(`a keep-alive has no "${request.op}"`);
    if (!isMutant("keep-alive-stays-registered")) await this.#helper.stop();
    return {};
  }

  async cancel(): Promise<void> {
    await this.#helper.stop().catch(ignore);
  }
}
