/** Compiles the package twice, as ES modules and as CommonJS, each in a folder that says which it is. */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));

function compile(project) {
  return new Promise((resolve, reject) => {
    spawn(process.execPath, [tsc, "-p", project], { cwd: root, stdio: "inherit" })
      .on("error", reject)
      .on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`${project} failed`))));
  });
}

// Nothing is removed first: the package may be in use meanwhile.
mkdirSync(`${root}dist/cjs`, { recursive: true });
writeFileSync(`${root}dist/cjs/package.json`, '{ "type": "commonjs", "sideEffects": false }\n');
try {
  await Promise.all([compile("tsconfig.esm.json"), compile("tsconfig.cjs.json")]);
  // `imports` of package.json do not reach into a folder with a package.json of its own; here `browser` does the same.
  const client = `${root}dist/cjs/client.js`;
  const code = readFileSync(client, "utf8").replace('"#platform"', '"./platform.js"');
  if (!code.includes('"./platform.js"')) throw new Error("client.js does not import #platform");
  writeFileSync(client, code);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
