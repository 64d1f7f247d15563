/**
 * Consuming a mailbox: fetch under a lease, hand over, renew meanwhile, acknowledge or give back.
 *
 * One batch at a time. Each message of it is *waiting*, then *running*, then *settled*; a lease covers all that are not
 * settled:
 *
 *     FETCH -> waiting -> running -> handler returned -> ACK  -> settled
 *                 |          `-----> handler failed  -> error hook, NACK with a growing delay -> settled
 *                 `-> stop(), cancelled -> NACK -> settled
 */
import type { Client } from "./client.js";
import { Mq9Error, invalid } from "./error.js";
import * as constants from "./generated/constants.js";
import type { Message } from "./generated/models.js";
import type { FetchOptions } from "./generated/operations.js";
import { log } from "./log.js";
import { deliveryOf, setDelivery } from "./message.js";
import { deferred, pause } from "./timing.js";

/**
 * Handles a message. When it returns, or its promise is fulfilled, the message is acknowledged. The signal is aborted
 * when the consumer is cancelled.
 */
export type Handler = (message: Message, signal: AbortSignal) => unknown;

/** Told of an error, and of the message that it is about, if it is about one. */
export type ErrorHook = (error: unknown, message: Message | undefined) => unknown;

/** What a consumer has done so far. */
export interface ConsumerStats {
  /** Messages handed to the handler or the loop. */
  readonly delivered: number;
  /** Messages confirmed. */
  readonly acknowledged: number;
  /** Messages whose handler failed. */
  readonly failed: number;
  /** Messages given back. */
  readonly givenBack: number;
  /** ACKs that failed; those messages come again. */
  readonly failedAcks: number;
  /** FETCHes that failed; each was followed by a pause. */
  readonly failedFetches: number;
}

/** How a consumer works, all of it checked. */
export interface ConsumerSettings {
  readonly mailAddress: string;
  readonly groupName: string;
  readonly handler: Handler | undefined;
  readonly numMsgs: number;
  readonly maxWaitMs: number;
  readonly leaseMs: number;
  readonly concurrency: number;
  readonly autoAck: boolean;
  readonly start: FetchOptions;
  readonly onError: ErrorHook | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * A running consumer; made by `Client.consume`.
 *
 * With a handler it runs by itself: `done` settles when it has ended, `stop()` ends it. Without one it is iterated:
 * `for await (const message of consumer)`. `await using consumer = ...` stops it at the end of the block.
 */
export class Consumer implements AsyncIterable<Message>, AsyncDisposable {
  /**
   * Fulfilled when the consumer has ended; rejected with the signal's reason when it was cancelled. Without a handler it
   * settles when the loop has ended.
   */
  readonly done: Promise<void>;
  readonly #client: Client;
  readonly #settings: ConsumerSettings;
  readonly #numMsgs: number;
  readonly #stats = {
    delivered: 0,
    acknowledged: 0,
    failed: 0,
    givenBack: 0,
    failedAcks: 0,
    failedFetches: 0,
  };
  /** Options of the first FETCH; empty once one has succeeded. */
  #start: FetchOptions;
  /** Aborted by stop() and by cancellation: ends FETCHes and pauses. */
  readonly #stopping = new AbortController();
  /** Aborted by cancellation alone. */
  readonly #cancelling = new AbortController();
  readonly #ended = deferred();
  #hasEnded = false;
  #waiting: Message[] = [];
  readonly #unsettled = new Map<bigint, Message>();
  #isIterated = false;
  /** The loop has asked for its first message. */
  #hasBegun = false;
  /** The loop's body has a message in hand. */
  #isInBody = false;

  /** Made by `Client.consume`. @internal */
  constructor(client: Client, settings: ConsumerSettings) {
    this.#client = client;
    this.#settings = settings;
    this.#numMsgs = Math.max(settings.numMsgs, settings.concurrency);
    this.#start = settings.start;
    const { signal, handler } = settings;
    signal?.throwIfAborted();
    client.parts.add(this);
    signal?.addEventListener("abort", this.#cancel);
    this.done =
      handler === undefined ? this.#ended.promise.then(this.#outcome) : this.#run(handler);
    // Who does not look at it is not told: the error hook was.
    this.done.catch(() => undefined);
  }

  /** What it has done so far. */
  get stats(): ConsumerStats {
    return { ...this.#stats };
  }

  /** Whether it fetches or handles messages, or may yet be iterated. */
  get isRunning(): boolean {
    return !this.#hasEnded;
  }

  // Ending.

  /**
   * Ends the consumer: waits for running handlers and their ACKs, gives back what was not started.
   *
   * Calling it again is fine. From inside a handler, or from the body of the loop, it only asks for the end and returns.
   */
  async stop(): Promise<void> {
    this.#ask();
    if (this.#client.context.getStore() === this) return;
    if (this.#settings.handler !== undefined) {
      await this.#ended.promise;
    } else if (!this.#hasBegun) {
      this.#finish();
    } else if (this.#isInBody) {
      await this.#giveBackWaiting();
    } else {
      await this.#ended.promise;
    }
  }

  /** Stops it at the end of a block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** The client's end. @internal */
  end(): Promise<void> {
    return this.stop();
  }

  #ask(): void {
    this.#stopping.abort(new Error("the consumer was stopped"));
  }

  readonly #cancel = (): void => {
    this.#cancelling.abort(this.#settings.signal?.reason);
    this.#ask();
    if (this.#settings.handler !== undefined) return;
    if (!this.#hasBegun) this.#finish();
    else if (this.#isInBody) void this.#client.inBackground(this.#giveBackWaiting());
  };

  /** Throws if the consumer was cancelled. */
  readonly #outcome = (): void => {
    this.#cancelling.signal.throwIfAborted();
  };

  #finish(): void {
    this.#hasEnded = true;
    this.#ask();
    this.#settings.signal?.removeEventListener("abort", this.#cancel);
    this.#client.parts.delete(this);
    this.#ended.resolve();
  }

  // The handler form.

  async #run(handler: Handler): Promise<void> {
    // Whoever made the consumer gets it before the first handler runs.
    await Promise.resolve();
    let renewing: Renewing | undefined;
    try {
      while (await this.#nextBatch()) {
        renewing = this.#renew();
        await this.#handle(handler);
        // Then everything in hand goes back at once, below.
        if (this.#cancelling.signal.aborted) break;
        await this.#giveBackWaiting();
        await renewing.end();
      }
    } finally {
      void renewing?.end();
      void this.#giveBackInBackground();
      this.#finish();
    }
    this.#outcome();
  }

  async #handle(handler: Handler): Promise<void> {
    const count = Math.min(this.#settings.concurrency, this.#waiting.length);
    const workers = Promise.all(Array.from({ length: count }, () => this.#work(handler)));
    const cancelled = deferred();
    const cancel = (): void => {
      // Handlers that heed their signal end now, and may clean up; for the others nobody waits.
      setTimeout(cancelled.resolve, 0);
    };
    const { signal } = this.#cancelling;
    if (signal.aborted) cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      await Promise.race([workers, cancelled.promise]);
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  async #work(handler: Handler): Promise<void> {
    const { signal } = this.#cancelling;
    while (!this.#stopping.signal.aborted) {
      const message = this.#waiting.shift();
      if (message === undefined) return;
      this.#stats.delivered += 1;
      let failure: { readonly error: unknown } | undefined;
      try {
        await this.#client.context.run(this, () => handler(message, signal));
      } catch (error) {
        failure = { error };
      }
      if (this.#hasEnded) return;
      if (signal.aborted) {
        if (failure === undefined && this.#settings.autoAck) {
          // It finished in spite of the cancellation: its work is not done again.
          this.#unsettled.delete(message.msgId);
          void this.#client.inBackground(this.#acknowledge(message));
        }
        return;
      }
      if (failure === undefined) {
        if (this.#settings.autoAck) await this.#acknowledge(message);
        this.#unsettled.delete(message.msgId);
      } else {
        this.#stats.failed += 1;
        await this.#report(failure.error, message);
        await this.#giveBack([message], nackDelayMs(message.deliveryCount ?? 1n));
      }
    }
  }

  // Iteration.

  /** Iterates the messages, once. */
  [Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    if (this.#settings.handler !== undefined) {
      throw invalid("handler", "a consumer with a handler can't be iterated as well");
    }
    if (this.#isIterated) {
      throw invalid("consumer", "can be iterated once only: call consume again");
    }
    this.#isIterated = true;
    return new Loop(this.#iterate(), () => {
      // Left before it began: the generator's own `finally` does not run then.
      if (!this.#hasEnded) this.#finish();
    });
  }

  async *#iterate(): AsyncGenerator<Message, void, undefined> {
    let renewing: Renewing | undefined;
    this.#hasBegun = true;
    try {
      while (await this.#nextBatch()) {
        renewing = this.#renew();
        while (!this.#stopping.signal.aborted) {
          const message = this.#waiting.shift();
          if (message === undefined) break;
          this.#stats.delivered += 1;
          this.#isInBody = true;
          yield message;
          // The loop has come back for more, so its body has ended well.
          this.#isInBody = false;
          if (this.#settings.autoAck) await this.#acknowledge(message);
          this.#unsettled.delete(message.msgId);
        }
        if (this.#cancelling.signal.aborted) break;
        await this.#giveBackWaiting();
        await renewing.end();
      }
      this.#outcome();
    } finally {
      this.#isInBody = false;
      void renewing?.end();
      const givenBack = this.#giveBackInBackground();
      if (!this.#cancelling.signal.aborted) await givenBack;
      this.#finish();
    }
  }

  // Pieces of both.

  /** Waits for messages and puts them into `#waiting`; false if it was stopped. */
  async #nextBatch(): Promise<boolean> {
    let pauseMs = constants.CONSUME_FETCH_PAUSE_MS;
    const stopping = this.#stopping.signal;
    while (!stopping.aborted) {
      try {
        await this.#fetch();
        pauseMs = constants.CONSUME_FETCH_PAUSE_MS;
      } catch (error) {
        if (error === stopping.reason) return false;
        if (!(error instanceof Mq9Error)) throw error;
        this.#stats.failedFetches += 1;
        if (this.#client.isClosed) {
          this.#ask();
          return false;
        }
        await this.#report(error, undefined);
        const jitter = 1 + Math.random() * constants.CONSUME_FETCH_PAUSE_JITTER;
        await pause(pauseMs * jitter, { signal: stopping }).catch(() => undefined);
        pauseMs = Math.min(
          pauseMs * constants.CONSUME_FETCH_PAUSE_FACTOR,
          constants.CONSUME_FETCH_PAUSE_MAX_MS,
        );
      }
      if (this.#waiting.length > 0) return true;
    }
    return false;
  }

  async #fetch(): Promise<void> {
    const { mailAddress, groupName, maxWaitMs, leaseMs, timeoutMs } = this.#settings;
    const result = await this.#client.fetch(mailAddress, {
      ...this.#start,
      groupName,
      numMsgs: this.#numMsgs,
      maxWaitMs,
      leaseMs,
      timeoutMs,
      // What a FETCH brings after that is given back by the client.
      signal: this.#stopping.signal,
    });
    this.#start = {};
    const client = this.#client;
    const leaseId = result.leaseId ?? "";
    for (const message of result.messages) {
      setDelivery(message, { client, mailAddress, groupName, leaseId, leaseMs, settled: false });
      this.#unsettled.set(message.msgId, message);
      this.#waiting.push(message);
    }
  }

  /** Keeps everything that is not settled hidden from the rest of the group. */
  #renew(): Renewing {
    const { mailAddress, groupName, leaseMs } = this.#settings;
    const ending = new AbortController();
    const { signal } = ending;
    const run = async (): Promise<void> => {
      for (;;) {
        await pause(leaseMs / constants.CONSUME_RENEW_DIVISOR, { signal });
        const held = new Map<string, bigint[]>();
        for (const message of this.#unsettled.values()) {
          const { settled, leaseId } = deliveryOf(message);
          if (!settled) held.set(leaseId, [...(held.get(leaseId) ?? []), message.msgId]);
        }
        for (const [leaseId, ids] of held) {
          try {
            await this.#client.renew(mailAddress, groupName, ids, leaseMs, { leaseId, signal });
          } catch (error) {
            if (!(error instanceof Mq9Error)) throw error;
            await this.#report(error, undefined);
          }
        }
      }
    };
    const running = run().catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    running.catch(() => undefined);
    return {
      end: () => {
        ending.abort(new Error("the batch is finished"));
        return running;
      },
    };
  }

  async #acknowledge(message: Message): Promise<void> {
    if (deliveryOf(message).settled) return;
    try {
      await message.ack(this.#client.internal({ timeoutMs: this.#settings.timeoutMs }));
      this.#stats.acknowledged += 1;
    } catch (error) {
      if (!(error instanceof Mq9Error)) throw error;
      this.#stats.failedAcks += 1;
      await this.#report(error, message);
    }
  }

  /** NACKs messages of one batch that are not settled; what fails comes again when its lease is over. */
  async #giveBack(messages: readonly Message[], delayMs = 0): Promise<void> {
    const held = messages.filter((message) => !deliveryOf(message).settled);
    for (const message of messages) this.#unsettled.delete(message.msgId);
    const [first] = held;
    if (first === undefined) return;
    const { mailAddress, groupName, timeoutMs } = this.#settings;
    try {
      await this.#client.nack(
        mailAddress,
        groupName,
        held.map((message) => message.msgId),
        this.#client.internal({ leaseId: deliveryOf(first).leaseId, delayMs, timeoutMs }),
      );
      this.#stats.givenBack += held.length;
    } catch (error) {
      if (!(error instanceof Mq9Error)) throw error;
      await this.#report(error, held.length === 1 ? first : undefined);
    }
  }

  /** After stop(): gives back what was not started. */
  async #giveBackWaiting(): Promise<void> {
    const messages = this.#waiting;
    this.#waiting = [];
    await this.#giveBack(messages);
  }

  /** After a cancellation, or the end of the loop: gives everything back that is still in hand. */
  #giveBackInBackground(): Promise<void> {
    this.#waiting = [];
    const messages = [...this.#unsettled.values()];
    return messages.length === 0
      ? Promise.resolve()
      : this.#client.inBackground(this.#giveBack(messages));
  }

  /** Runs the error hook, or logs where there is none; a hook that fails is logged too. */
  async #report(error: unknown, message: Message | undefined): Promise<void> {
    const { mailAddress, groupName, onError } = this.#settings;
    if (onError === undefined) {
      const about = message === undefined ? "the consumer" : `message ${String(message.msgId)}`;
      // Where a handler failed only its stack tells; the client's own errors say enough.
      const shown = error instanceof Mq9Error ? error.message : error;
      log.warn(`${mailAddress}, group ${groupName}, ${about}:`, shown);
      return;
    }
    try {
      await this.#client.context.run(this, () => onError(error, message));
    } catch (failure) {
      log.warn(`${mailAddress}, group ${groupName}: the error hook failed:`, failure);
    }
  }
}

interface Renewing {
  end(): Promise<void>;
}

/** A generator that tells when it is left before its first step. */
class Loop implements AsyncGenerator<Message, void, undefined> {
  readonly #inner: AsyncGenerator<Message, void, undefined>;
  readonly #left: () => void;

  constructor(inner: AsyncGenerator<Message, void, undefined>, left: () => void) {
    this.#inner = inner;
    this.#left = left;
  }

  next(): Promise<IteratorResult<Message, void>> {
    return this.#inner.next();
  }

  async return(): Promise<IteratorResult<Message, void>> {
    const result = await this.#inner.return();
    this.#left();
    return result;
  }

  async throw(error: unknown): Promise<IteratorResult<Message, void>> {
    try {
      return await this.#inner.throw(error);
    } finally {
      this.#left();
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}

/** How long a message stays hidden after its handler failed, in milliseconds. */
export function nackDelayMs(deliveryCount: bigint): number {
  const doublings = Math.min(Math.max(Number(deliveryCount), 1) - 1, 62);
  const delay = constants.CONSUME_NACK_DELAY_MS * constants.CONSUME_NACK_DELAY_FACTOR ** doublings;
  return Math.min(delay, constants.CONSUME_NACK_DELAY_MAX_MS);
}
