/** Broken pieces, chosen by MQ9_ADAPTER_MUTANT; without it nothing here has any effect. See conformance/ADAPTERS.md. */
import type { Fields } from "./convert.js";

const chosen = process.env["MQ9_ADAPTER_MUTANT"] ?? "";

/** Whether this piece is the broken one. */
export function isMutant(name: string): boolean {
  return chosen === name;
}

/** Arguments on their way into the SDK. */
export function mutateArguments(
  _method: string,
  args: Record<string, unknown>,
): Record<string, unknown> {
  return args;
}

/** A result on its way out of the SDK. */
export function mutateResult(value: unknown): unknown {
  return value;
}

/** An error on its way out of the SDK. */
export function mutateError(fields: Fields): Fields {
  return fields;
}
