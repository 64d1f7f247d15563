import { invalid } from "./error.js";

const SCHEMES = ["nats", "tls", "ws", "wss"];
const DEFAULT_PORT = 4222;

/** A server's URL, taken apart. */
export interface Server {
  readonly scheme: string;
  /** Without credentials. */
  readonly url: string;
  /** As they stand in the URL, with the `@`; empty if there are none. */
  readonly credentials: string;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly token: string | undefined;
  readonly isTls: boolean;
  /** For people, without the password. */
  readonly shown: string;
}

/** Takes a server's URL apart. */
export function parseServer(url: string): Server {
  const [scheme = "nats", rest = ""] = url.split("://", 2);
  const at = rest.lastIndexOf("@");
  const credentials = rest.slice(0, at + 1);
  const place = rest.slice(at + 1);
  const colon = credentials.indexOf(":");
  const first = decodeURIComponent(
    colon < 0 ? credentials.slice(0, -1) : credentials.slice(0, colon),
  );
  const hasPassword = colon >= 0;
  return {
    scheme,
    url: scheme.startsWith("ws") ? `${scheme}://${place}` : place,
    credentials,
    user: hasPassword ? first : undefined,
    password: hasPassword ? decodeURIComponent(credentials.slice(colon + 1, -1)) : undefined,
    token: !hasPassword && first !== "" ? first : undefined,
    isTls: scheme === "tls",
    shown: `${scheme}://${credentials === "" ? "" : "…@"}${place}`,
  };
}

/** Server URLs from one URL, a list, or one string with commas between URLs. */
export function serverList(servers: unknown): readonly string[] {
  const parts: unknown[] = Array.isArray(servers) ? servers : [servers];
  const texts = parts.map((part) => {
    if (typeof part !== "string") {
      throw invalid("servers", `must be a URL or a list of URLs, not ${typeof part}`);
    }
    return part;
  });
  const urls = texts
    .flatMap((part) => part.split(","))
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(serverUrl);
  if (urls.length === 0) throw invalid("servers", "must not be empty");
  if (new Set(urls.map((url) => url.startsWith("ws"))).size > 1) {
    throw invalid("servers", "must be all WebSocket URLs or none");
  }
  return [...new Set(urls)];
}

function serverUrl(text: string): string {
  const full = text.includes("://") ? text : `nats://${text}`;
  const scheme = full.split("://", 1)[0] ?? "";
  const shown = full.replace(/\/\/.*@/, "//…@");
  let url: URL;
  try {
    // A scheme that URL knows makes it check host and port.
    url = new URL(full.replace(/^[a-z]+:/, "http:"));
  } catch {
    throw invalid("servers", `${JSON.stringify(shown)} is no URL like nats://host:4222`);
  }
  if (!SCHEMES.includes(scheme) || url.hostname === "" || /\s/.test(full)) {
    throw invalid("servers", `${JSON.stringify(shown)} is no URL like nats://host:4222`);
  }
  const rest = full.slice(scheme.length + 3).replace(/\/$/, "");
  const at = rest.lastIndexOf("@");
  const place = rest.slice(at + 1);
  const hasPort = /:\d+$/.test(place.replace(/\/.*/, ""));
  if (hasPort || scheme.startsWith("ws")) return `${scheme}://${rest}`;
  return `${scheme}://${rest.replace(/:$/, "")}:${String(DEFAULT_PORT)}`;
}
