/** Between the adapter protocol's JSON and the SDK's own values, by the kinds in `dispatch`. */
import { parseJson, stringifyJson } from "mq9";
import type { JsonValue, Message } from "mq9";
import { OBJECTS } from "./dispatch.js";
import type { Members } from "./dispatch.js";
import { mutateId, mutatePayload } from "./mutants.js";

/** A request that this adapter does not know how to carry out. */
export class NotUnderstood extends Error {}

/** A JSON object of the protocol. */
export type Fields = Record<string, JsonValue>;

/** Arguments by their names in the SDK. */
export function argumentsOf(given: Fields, parameters: Members): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    let plainName = name;
    let form = "";
    if (parameters[name] === undefined) {
      const cut = name.lastIndexOf("_");
      plainName = name.slice(0, cut);
      form = name.slice(cut + 1);
    }
    const parameter = parameters[plainName];
    if (parameter === undefined) throw new NotUnderstood(`there is no parameter "${name}"`);
    result[parameter.name] = argument(value, parameter.kind, form);
  }
  return result;
}

function textOf(value: JsonValue): string {
  if (typeof value !== "string") throw new NotUnderstood("this has to be text");
  return value;
}

function argument(value: JsonValue, kind: string, form: string): unknown {
  if (form === "b64") return mutatePayload(new Uint8Array(Buffer.from(textOf(value), "base64")));
  if (form === "json") return parseJson(textOf(value));
  if (kind === "id") return typeof value === "string" ? mutateId(BigInt(value)) : value;
  if (kind.startsWith("list:") && Array.isArray(value)) {
    return value.map((item: JsonValue) => argument(item, kind.slice("list:".length), ""));
  }
  return value;
}

/** A result in the protocol's form; absent fields are left out. */
export function resultOf(value: unknown, kind: string, decode: readonly string[]): JsonValue {
  if (kind === "none") return {};
  if (kind.startsWith("list:")) {
    return (value as unknown[]).map((item) => resultOf(item, kind.slice("list:".length), decode));
  }
  if (kind === "id") return String(mutateId(value as bigint));
  if (kind === "json") return stringifyJson(value);
  if (kind.startsWith("object:")) return objectOf(value, kind.slice("object:".length), decode);
  return value as JsonValue;
}

/** An object of the SDK in the protocol's form. */
export function objectOf(value: unknown, name: string, decode: readonly string[]): Fields {
  const fields: Fields = {};
  for (const [wireName, member] of Object.entries(OBJECTS[name] ?? {})) {
    const item = (value as Record<string, unknown>)[member.name];
    if (item === undefined) continue;
    if (member.kind === "payload") {
      fields[`${wireName}_b64`] = Buffer.from(item as Uint8Array).toString("base64");
    } else if (member.kind === "json") {
      fields[`${wireName}_json`] = resultOf(item, member.kind, decode);
    } else {
      fields[wireName] = resultOf(item, member.kind, decode);
    }
  }
  if (name === "message" && decode.includes("text")) {
    fields["decoded_text"] = (value as Message).text();
  }
  if (name === "message" && decode.includes("json")) {
    fields["decoded_json"] = stringifyJson((value as Message).json());
  }
  return fields;
}
