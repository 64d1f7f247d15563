/** The demo's agent in TypeScript: counts the words of texts that it finds in a mailbox; see demo.yaml. */
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Mq9Error, connect } from "mq9";
import type { Message } from "mq9";

interface Task {
  readonly document: string;
  readonly text: string;
  readonly n: number;
}

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    console.error(`${name} is not set`);
    process.exit(2);
  }
  return value;
}

/** The n most frequent words of four letters or more, ties in alphabetical order. */
function mostFrequent(text: string, n: number): [string, number][] {
  const counts = new Map<string, number>();
  for (const [word] of text.matchAll(/[A-Za-z]{4,}/g)) {
    const lower = word.toLowerCase();
    counts.set(lower, (counts.get(lower) ?? 0) + 1);
  }
  return [...counts]
    .sort(([a, countOfA], [b, countOfB]) => countOfB - countOfA || (a < b ? -1 : 1))
    .slice(0, n);
}

const url = setting("MQ9_URL");
const name = setting("MQ9_NAME");
const mailbox = setting("MQ9_MAILBOX");
const thinkMs = Number(setting("MQ9_THINK_MS"));

const client = await connect(url, { name });
await client.mailboxCreate(mailbox, { ttl: 600 }).catch((error: unknown) => {
  if (!(error instanceof Mq9Error) || error.code !== "mailbox_exists") throw error;
});
await client.agentKeepAlive(name, {
  mailbox,
  card: {
    description: "counts the words of a text, in TypeScript",
    skills: [{ id: "count-words" }],
    language: "TypeScript",
  },
});

async function work(message: Message): Promise<void> {
  const { document, text, n } = message.json() as unknown as Task;
  console.log(
    `began ${document} priority=${message.priority} delivery=${message.deliveryCount ?? 0n}`,
  );
  await sleep(thinkMs);
  const words = text.split(/[ \t\r\n\v\f]+/).filter((word) => word !== "").length;
  const answer = {
    agent: name,
    language: "TypeScript",
    document,
    words,
    top: mostFrequent(text, n),
  };
  if (message.replyTo !== undefined) {
    const { correlationId, priority } = message;
    await client.send(message.replyTo, answer, { correlationId, priority });
  }
  console.log(`did ${document} words=${words}`);
}

// Closing stops the consumer after the task in hand, and unregisters the agent.
process.once("SIGTERM", () => {
  void client.close().then(() => process.exit(0));
});

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === "work") {
    client.consume(mailbox, "workers", work, {
      deliver: "earliest",
      numMsgs: 1,
      leaseMs: 2000,
      maxWaitMs: 1000,
    });
    break;
  }
}
