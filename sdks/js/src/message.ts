import { utf8 } from "./decode.js";
import type { Integer } from "./encode.js";
import { invalid } from "./error.js";
import { MessageHeaders } from "./generated/headers.js";
import type { Client } from "./client.js";
import { parseJson } from "./json.js";
import type { JsonValue } from "./json.js";
import type { CallOptions } from "./operation.js";

/** Through whom, for which group and under which lease a message was delivered. */
export interface Delivery {
  readonly client: Client;
  readonly mailAddress: string;
  readonly groupName: string;
  readonly leaseId: string;
  readonly leaseMs: Integer;
  settled: boolean;
}

const deliveries = new WeakMap<MessageBase, Delivery>();

/** Ties a message to its delivery. */
export function setDelivery(message: MessageBase, delivery: Delivery): void {
  deliveries.set(message, delivery);
}

/** The delivery of a message that `consume` brought; `method` is named as what to use for others. */
export function deliveryOf(message: MessageBase, method = "ack"): Delivery {
  const delivery = deliveries.get(message);
  if (delivery === undefined) {
    throw invalid(
      "message",
      `message ${String(message.msgId)} did not come from consume: call the client's ${method} instead`,
    );
  }
  return delivery;
}

/** The methods of `Message`. Its fields are generated. */
export abstract class MessageBase extends MessageHeaders {
  abstract readonly msgId: bigint;
  abstract readonly payload: Uint8Array;

  /**
   * The payload as text.
   *
   * @throws TypeError if it is not UTF-8.
   */
  text(): string {
    return utf8(this.payload);
  }

  /**
   * The payload as a JSON value; whole numbers that a `number` can't hold exactly are a `bigint`.
   *
   * @throws TypeError if it is not UTF-8, SyntaxError if it is not JSON.
   */
  json(): JsonValue {
    return parseJson(this.text());
  }

  /**
   * Confirms this message for its consumer group: it never comes again. Only for messages that `consume` delivered;
   * others are confirmed by `Client.ack`.
   *
   * @throws Mq9Error if it could not be confirmed; it comes again when its lease is over.
   */
  async ack(options: CallOptions = {}): Promise<void> {
    const delivery = deliveryOf(this, "ack");
    await delivery.client.ack(delivery.mailAddress, delivery.groupName, this.msgId, options);
    delivery.settled = true;
  }

  /**
   * Gives this message back to its consumer group, unless another consumer holds it by now; after `delayMs`, if that
   * is given.
   *
   * @throws Mq9Error if it could not be given back; it comes again when its lease is over.
   */
  async nack(
    options: CallOptions & { readonly delayMs?: Integer | undefined } = {},
  ): Promise<void> {
    const delivery = deliveryOf(this, "nack");
    await delivery.client.nack(delivery.mailAddress, delivery.groupName, [this.msgId], {
      ...options,
      leaseId: delivery.leaseId,
    });
    delivery.settled = true;
  }

  /**
   * Keeps this message hidden from the rest of its group for longer: for `leaseMs` from now, or the lease that it came
   * under. `consume` does so by itself while a handler runs.
   *
   * @returns Whether it is still ours; if not, its lease was over before.
   * @throws Mq9Error if it could not be renewed.
   */
  async renew(
    options: CallOptions & { readonly leaseMs?: Integer | undefined } = {},
  ): Promise<boolean> {
    const delivery = deliveryOf(this, "renew");
    const { leaseMs = delivery.leaseMs, ...rest } = options;
    const renewed = await delivery.client.renew(
      delivery.mailAddress,
      delivery.groupName,
      [this.msgId],
      leaseMs,
      { ...rest, leaseId: delivery.leaseId },
    );
    return renewed.includes(this.msgId);
  }
}
