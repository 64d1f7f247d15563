/** Compiles the package twice, as ES modules and as CommonJS, each in a folder that says which it is. */
import { spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
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

rmSync(`${root}dist`, { recursive: true, force: true });
for (const [folder, type] of [
  ["esm", "module"],
  ["cjs", "commonjs"],
]) {
  mkdirSync(`${root}dist/${folder}`, { recursive: true });
  // What is different in browsers is chosen by their bundlers.
  const imports = {
    "#platform": { browser: "./platform-browser.js", default: "./platform.js" },
  };
  writeFileSync(
    `${root}dist/${folder}/package.json`,
    `${JSON.stringify({ type, sideEffects: false, imports }, undefined, 2)}\n`,
  );
}
try {
  await Promise.all([compile("tsconfig.esm.json"), compile("tsconfig.cjs.json")]);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
