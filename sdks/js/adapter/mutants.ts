/** Broken pieces, chosen by MQ9_ADAPTER_MUTANT; without it nothing here has any effect. See conformance/ADAPTERS.md. */
import { Client } from "mq9";
import type { JsonValue } from "mq9";

type Fields = Record<string, JsonValue>;

const chosen = process.env["MQ9_ADAPTER_MUTANT"] ?? "";

/** Whether this piece is the broken one. */
export function isMutant(name: string): boolean {
  return chosen === name;
}

/** An id on its way into or out of the SDK. */
export function mutateId(id: bigint): bigint {
  return isMutant("ids-through-doubles") ? BigInt(Number(id)) : id;
}

/** A payload on its way into the SDK. */
export function mutatePayload(bytes: Uint8Array): Uint8Array | string {
  return isMutant("payload-as-text") ? new TextDecoder().decode(bytes) : bytes;
}

/** Arguments on their way into the SDK. */
export function mutateArguments(
  method: string,
  args: Record<string, unknown>,
): Record<string, unknown> {
  if (isMutant("defaults-always-sent") && method === "send") {
    return { priority: "normal", ...args };
  }
  return args;
}

/** An error on its way out of the SDK. */
export function mutateError(fields: Fields): Fields {
  const { code: _code, ...rest } = fields;
  if (isMutant("error-code-dropped")) return rest;
  if (isMutant("kind-always-server")) return { ...fields, kind: "server" };
  if (isMutant("timeout-is-closed") && fields["kind"] === "timeout") {
    return { ...fields, kind: "connection_closed" };
  }
  return fields;
}

/** The operations as data, below the public API. */
interface OperationData {
  retriesOn?: string[];
  retryNeeds?: unknown;
  leases?: unknown;
}

async function operations(): Promise<Record<string, OperationData>> {
  const file = new URL("../../dist/esm/generated/operations.js", import.meta.url);
  return (await import(file.href)) as Record<string, OperationData>;
}

type Method = (...args: unknown[]) => Promise<unknown>;

/** Puts something around a method of every client. */
function around(name: string, change: (args: unknown[], call: Method) => Promise<unknown>): void {
  const methods = Client.prototype as unknown as Record<string, Method>;
  const original = methods[name];
  if (original === undefined) throw new Error(`the client has no ${name}`);
  methods[name] = function (this: Client, ...args: unknown[]) {
    return change(args, (...changed) => original.apply(this, changed));
  };
}

/** Breaks what can't be broken at the edges. */
const breaks: Record<string, () => void | Promise<void>> = {
  "retries-off": async () => {
    for (const data of Object.values(await operations())) if (data.retriesOn) data.retriesOn = [];
  },
  "send-always-repeated": async () => {
    delete (await operations())["MSG_SEND"]?.retryNeeds;
  },
  "late-fetch-kept": async () => {
    delete (await operations())["MSG_FETCH"]?.leases;
  },
  "nack-delay-fixed": () => {
    around("nack", ([address, group, ids, options], call) => {
      const fixed = (options as { delayMs?: number }).delayMs ? { delayMs: 1000 } : {};
      return call(address, group, ids, { ...(options as object), ...fixed });
    });
  },
  "never-renewed": () => {
    around("renew", () => Promise.resolve([]));
  },
  "acks-as-lists": () => {
    around("ack", ([address, group, id, options], call) =>
      typeof id === "bigint"
        ? call(address, group, undefined, { ...(options as object), msgIds: [id] })
        : call(address, group, id, options),
    );
  },
  "deliver-for-ever": () => {
    let start: object = {};
    around("fetch", ([address, options], call) => {
      const given = options as { deliver?: string; timeoutMs?: number; numMsgs?: number };
      const isConsumer = "timeoutMs" in given && "numMsgs" in given;
      if (given.deliver !== undefined) start = { deliver: given.deliver };
      return call(address, isConsumer ? { ...start, ...given } : given);
    });
  },
};

await breaks[chosen]?.();
