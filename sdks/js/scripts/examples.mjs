/** Runs the README's quickstart and every example against a broker: MQ9_URL, or one of its own. */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = `${root}temp/examples`;

/** Runs a program to its end and gives what it printed. */
function run(program, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, env: { ...process.env, ...env } });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => {
        output += data;
      });
    }
    const watchdog = setTimeout(() => child.kill("SIGKILL"), 60_000);
    child.on("error", reject).on("close", (code) => {
      clearTimeout(watchdog);
      if (code === 0) resolve(output);
      else reject(new Error(`${args.join(" ")} ended with ${code}:\n${output}`));
    });
  });
}

/** Starts a broker and gives its URL. */
function startBroker() {
  const args = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "memory"];
  const broker = spawn(`${root}../../.venv/bin/mq9-broker`, args);
  return new Promise((resolve, reject) => {
    broker.on("error", reject).on("exit", () => reject(new Error("the broker did not start")));
    broker.stdout.once("data", (data) => {
      resolve({ url: /nats=(\S+)/.exec(String(data))[1], stop: () => broker.kill() });
    });
  });
}

const EXPECTED = {
  quickstart: ["message 0 (urgent): { task: 'greet', who: 'world' }"],
  "worker-pool": ["job 5 does not like to be first", "jobs done: 0 1 2 3 4 5 6 7 8 9 10 11"],
  "request-reply": ["answer: HOW ARE YOU?"],
  "agent-registry": ["found word-counter: Counts the words of a text.", "6 words", "0 agents left"],
  readme: ["urgent { task: 'greet', who: 'world' }"],
};

await run(`${root}node_modules/.bin/tsc`, ["-p", "examples"]);
const broker = process.env.MQ9_URL
  ? { url: process.env.MQ9_URL, stop: () => {} }
  : await startBroker();
try {
  const readme = readFileSync(`${root}README.md`, "utf8");
  const quickstart = /## Quickstart[^]*?```ts\n([^]*?)```/.exec(readme)[1];
  mkdirSync(out, { recursive: true });
  writeFileSync(`${out}/readme.js`, quickstart.replace("nats://127.0.0.1:4222", broker.url));
  const names = readdirSync(`${root}examples`)
    .filter((name) => name.endsWith(".ts") && name !== "demo-agent.ts")
    .map((name) => name.slice(0, -".ts".length));
  for (const name of [...names, "readme"]) {
    const output = await run("node", [`${out}/${name}.js`], { MQ9_URL: broker.url });
    for (const line of EXPECTED[name] ?? [`there is nothing expected of ${name}`]) {
      if (!output.includes(line)) throw new Error(`${name} printed\n${output}without: ${line}`);
    }
    console.log(`${name}:\n${output}`);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  broker.stop();
}
