import type { Client } from "./client.js";
import { Mq9Error } from "./error.js";
import * as constants from "./generated/constants.js";
import type { AgentRegisterOptions } from "./generated/operations.js";
import { log } from "./log.js";
import { pause } from "./timing.js";

/** An agent that is registered until this is stopped; made by `Client.agentKeepAlive`. */
export class AgentKeepAlive implements AsyncDisposable {
  readonly #client: Client;
  readonly #name: string;
  readonly #options: AgentRegisterOptions;
  readonly #ending = new AbortController();
  #reporting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  /** Made by `Client.agentKeepAlive`. @internal */
  constructor(client: Client, name: string, options: AgentRegisterOptions) {
    this.#client = client;
    this.#name = name;
    const { signal: _signal, ...rest } = options;
    this.#options = { ...rest, ttl: constants.AGENT_KEEP_ALIVE_REGISTER_TTL };
  }

  /** Registers the agent and begins to report it. @internal */
  async start(signal: AbortSignal | undefined): Promise<void> {
    await this.#client.agentRegister(this.#name, { ...this.#options, signal });
    this.#reporting = this.#report();
    this.#client.parts.add(this);
  }

  /**
   * Ends the reports and unregisters the agent; calling it again is fine.
   *
   * @throws Mq9Error if it could not be unregistered; it goes by itself when its ttl is over.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  /** Stops it at the end of a block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** The client's end. @internal */
  end(): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#client.parts.delete(this);
    this.#ending.abort(new Error("the agent was stopped"));
    await this.#reporting;
    await this.#client.agentUnregister(this.#name);
  }

  async #report(): Promise<void> {
    const { signal } = this.#ending;
    for (;;) {
      try {
        await pause(constants.AGENT_KEEP_ALIVE_REPORT_EVERY_MS, { signal });
        await this.#reportOnce(signal);
      } catch (error) {
        if (signal.aborted) return;
        log.warn(`agent ${this.#name} could not be reported, trying again later:`, String(error));
      }
    }
  }

  async #reportOnce(signal: AbortSignal): Promise<void> {
    try {
      await this.#client.agentReport(this.#name, { signal });
    } catch (error) {
      if (!(error instanceof Mq9Error) || error.code !== "agent_not_found") throw error;
      await this.#client.agentRegister(this.#name, { ...this.#options, signal });
    }
  }
}
