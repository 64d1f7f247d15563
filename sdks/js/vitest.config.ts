import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    alias: {
      mq9: new URL("src/index.ts", import.meta.url).pathname,
      "#platform": new URL("src/platform.ts", import.meta.url).pathname,
    },
  },
  test: {
    include: ["tests/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    maxWorkers: 2,
    maxConcurrency: 100,
  },
});
