/** From the arguments of a call to the request that goes out, by the operation's data. */
import * as encode from "./encode.js";
import { invalid } from "./error.js";
import * as constants from "./generated/constants.js";
import type { Operation, Parameter, Requirement } from "./operation.js";

/** The arguments of a call by name. */
export type Arguments = Readonly<Record<string, unknown>>;

/** A request, ready to be sent. */
export interface Request {
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  /** Whether this call may be tried again at all. */
  readonly repeatable: boolean;
  /** Milliseconds that the broker may take on top of the timeout. */
  readonly waitMs: number;
  /** Mailbox and consumer group, if the reply may bring messages under a lease. */
  readonly lease: readonly [mailAddress: string, groupName: string] | undefined;
}

const EMPTY = new Uint8Array(0);

/** Whether an argument counts: neither absent nor one of the forms that mean the same. */
export function isGiven(parameter: Pick<Parameter, "omitted">, value: unknown): boolean {
  if (value === undefined || value === null || value === "") return false;
  if (parameter.omitted !== undefined) {
    if (value === parameter.omitted) return false;
    if (parameter.omitted === 0 && value === 0n) return false;
  }
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object") {
    const prototype: unknown = Object.getPrototypeOf(value);
    const isPlain = prototype === Object.prototype || prototype === null;
    return !isPlain || Object.keys(value).length > 0;
  }
  return true;
}

/** Checks the conditions between parameters. */
export function checkRules(
  rules: readonly Requirement[],
  args: Arguments,
  parameters: readonly Pick<Parameter, "argument" | "omitted">[],
): void {
  const given = (name: string): boolean =>
    isGiven(parameters.find((parameter) => parameter.argument === name) ?? {}, args[name]);
  for (const rule of rules) {
    const applies =
      rule.when === undefined ||
      (rule.is === undefined ? given(rule.when) : args[rule.when] === rule.is);
    if (applies && !rule.require.some(given)) throw invalid(rule.failsOn, rule.why);
  }
}

/** Checks the arguments, in the operation's order, and makes the request. */
export function makeRequest(operation: Operation, args: Arguments): Request {
  let subject = operation.subject;
  let body: Record<string, unknown> = {};
  let payload: Uint8Array = EMPTY;
  const headers: Record<string, string> = {};
  for (const parameter of operation.parameters) {
    const { name, place, rule } = parameter;
    const value = args[parameter.argument];
    if (rule === undefined || (parameter.optional && !isGiven(parameter, value))) continue;
    const checked = rule(name, value);
    if (place === "subject") {
      subject = subject.replace(`{${name}}`, () => String(checked));
    } else if (place === "payload") {
      payload = checked as Uint8Array;
    } else if (place === "header") {
      headers[parameter.header ?? name] = headerValue(parameter, checked);
    } else if (place === "headers") {
      Object.assign(headers, checked);
    } else if (parameter.spread) {
      body = { ...(checked as object), ...body };
    } else {
      put(body, parameter.path ?? [name], checked);
    }
  }
  for (const constant of operation.constants ?? []) body[constant.name] = args[constant.argument];
  checkRules(operation.rules ?? [], args, operation.parameters);
  if (operation.body === "json") {
    const spread = operation.parameters.find((parameter) => parameter.spread);
    payload = encode.jsonBytes(spread?.name ?? "body", body);
  }
  return {
    subject,
    payload,
    headers,
    repeatable: canBeRepeated(operation, args, headers),
    waitMs: waitMs(operation, args),
    lease: lease(operation, args),
  };
}

function headerValue(parameter: Parameter, checked: unknown): string {
  if (parameter.encoding === "integer") return String(checked);
  if (parameter.encoding === "comma_separated") {
    return (checked as unknown[]).map((item) => encode.header(parameter.name, item)).join(",");
  }
  return encode.header(parameter.name, checked);
}

function put(body: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let inner = body;
  for (const key of path.slice(0, -1)) {
    inner = (inner[key] ??= {}) as Record<string, unknown>;
  }
  inner[path.at(-1) ?? ""] = value;
}

function canBeRepeated(
  operation: Operation,
  args: Arguments,
  headers: Record<string, string>,
): boolean {
  const needs = operation.retryNeeds;
  if (needs === undefined || headers[needs.header] !== undefined) return true;
  if (!needs.switches.some((name) => args[name])) return false;
  headers[needs.header] = encode.generatedDedupId(constants.RETRY_GENERATED_DEDUP_ID_HEX_DIGITS);
  return true;
}

function waitMs(operation: Operation, args: Arguments): number {
  const adds = operation.timeoutAdds;
  return adds === undefined ? 0 : Number(args[adds.argument] ?? adds.default);
}

function lease(operation: Operation, args: Arguments): Request["lease"] {
  const leases = operation.leases;
  if (leases === undefined || !Number(args[leases.whenPresent] ?? 0)) return undefined;
  const group = args[leases.group];
  const mailbox = args[leases.mailbox];
  return typeof group === "string" && group !== "" && typeof mailbox === "string"
    ? [mailbox, group]
    : undefined;
}
