import { CLASSIFY, FIELD_CODES } from "./generated/errors.js";
import type { ErrorCode, ErrorKind } from "./generated/errors.js";

/** What is known of a failure besides its message. */
export interface ErrorDetails {
  readonly code?: ErrorCode | undefined;
  readonly field?: string | undefined;
  readonly operation?: string | undefined;
  readonly cause?: unknown;
}

/**
 * Every error that this package makes. A call that was cancelled rejects with its signal's reason instead.
 */
export class Mq9Error extends Error {
  override readonly name = "Mq9Error";
  /** How the call failed. */
  readonly kind: ErrorKind;
  /** The broker's code, also one that this version does not know; undefined if there is none. */
  readonly code: ErrorCode | undefined;
  /** For `invalid_argument`: the argument that was wrong, as the protocol spells it. */
  readonly field: string | undefined;
  /** The operation that failed, such as `msg.send`; undefined if it was no operation. */
  readonly operation: string | undefined;

  /** Made by the client. */
  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.code = details.code;
    this.field = details.field;
    this.operation = details.operation;
  }
}

/** The error for an argument that can't be sent. */
export function invalid(
  field: string,
  why: string,
  code: ErrorCode = "invalid_argument",
): Mq9Error {
  return new Mq9Error("invalid_argument", `${field}: ${why}`, { code, field });
}

/** The error for a failed reply; without a code its text decides. */
export function serverError(
  message: string,
  code: string | undefined,
  operation: string,
): Mq9Error {
  const known =
    code ??
    CLASSIFY.find(
      ({ prefix, suffix }) =>
        message.length >= prefix.length + suffix.length &&
        message.startsWith(prefix) &&
        message.endsWith(suffix),
    )?.code;
  const colon = message.indexOf(": ");
  const field =
    known !== undefined && FIELD_CODES.includes(known) && colon >= 0
      ? message.slice(0, colon)
      : undefined;
  return new Mq9Error("server", message, { code: known, field, operation });
}
