/** Three workers share a mailbox; one job fails at first and comes again. */
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "mq9";
import type { Client } from "mq9";

const JOBS = 12;
const url = process.env["MQ9_URL"];
const done: number[] = [];

async function worker(name: string, address: string): Promise<Client> {
  const client = await connect(url, { name });
  client.consume(
    address,
    "workers",
    async (message) => {
      const job = Number(message.text());
      if (job === 5 && message.deliveryCount === 1n) {
        throw new Error("job 5 does not like to be first");
      }
      await sleep(10);
      done.push(job);
    },
    {
      deliver: "earliest",
      concurrency: 2,
      onError: (error) => {
        console.log(`${name}:`, String(error));
      },
    },
  );
  return client;
}

const client = await connect(url);
const address = await client.mailboxCreate({ ttl: 3600 });
for (let job = 0; job < JOBS; job++) {
  await client.send(address, String(job), { retry: true });
}
const pool = await Promise.all([1, 2, 3].map((number) => worker(`worker-${number}`, address)));
while (done.length < JOBS) await sleep(10);
await Promise.all([client, ...pool].map((one) => one.close()));
console.log(`jobs done: ${done.sort((a, b) => a - b).join(" ")}`);
