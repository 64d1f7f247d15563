import type { Rule } from "./encode.js";

/** What every call takes. */
export interface CallOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A parameter of an operation; generated from the specification. */
export interface Parameter {
  /** Its name in the protocol. */
  readonly name: string;
  /** Its name here. */
  readonly argument: string;
  readonly place: "subject" | "body" | "header" | "headers" | "payload" | "client";
  /** In a body: the keys from the top. */
  readonly path?: readonly string[];
  /** In a body: the members of this object stand in the body themselves. */
  readonly spread?: boolean;
  readonly header?: string;
  readonly encoding?: "text" | "integer" | "comma_separated";
  readonly rule?: Rule;
  readonly optional?: boolean;
  /** The default that means the same as nothing, and is not sent. */
  readonly omitted?: 0 | false;
}

/** A condition between parameters. */
export interface Requirement {
  /** It holds when one of these is given. */
  readonly require: readonly string[];
  readonly failsOn: string;
  /** It counts only when this parameter is given, or has the value `is`. */
  readonly when?: string;
  readonly is?: string | number | boolean;
  readonly why: string;
}

/** An operation as data; generated from the specification. */
export interface Operation {
  readonly name: string;
  /** With the names of parameters in braces. */
  readonly subject: string;
  readonly body: "none" | "json" | "payload";
  /** The kinds of failure, and codes, after which it may be tried again. */
  readonly retriesOn: readonly string[];
  /** When retries end, in milliseconds after the first attempt. */
  readonly giveUpMs?: number;
  /** It is tried again only with this argument; the switches make one up. */
  readonly retryNeeds?: {
    readonly argument: string;
    readonly header: string;
    readonly switches: readonly string[];
  };
  readonly timeoutAdds?: { readonly argument: string; readonly default: number };
  /** When its reply may bring messages under a lease. */
  readonly leases?: {
    readonly mailbox: string;
    readonly group: string;
    readonly whenPresent: string;
  };
  /** In the order in which they are checked. */
  readonly parameters: readonly Parameter[];
  /** Members of the body that repeat an argument. */
  readonly constants?: readonly { readonly name: string; readonly argument: string }[];
  readonly rules?: readonly Requirement[];
}

/** The parameters of consume; generated from the specification. */
export interface ConsumeParameters {
  readonly parameters: readonly {
    readonly name: string;
    readonly argument: string;
    readonly rule: Rule;
    readonly default?: number | boolean;
    readonly untilFirstFetch?: boolean;
  }[];
  readonly rules: readonly Requirement[];
}
