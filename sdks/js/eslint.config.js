import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig(
  { ignores: ["dist/", "temp/", "adapter/dist/", "node_modules/"] },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      // Overloads have their own documentation.
      "@typescript-eslint/unified-signatures": "off",
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/explicit-module-boundary-types": "error",
      // A loop until something is found.
      "@typescript-eslint/no-unnecessary-condition": [
        "error",
        { allowConstantLoopConditions: true },
      ],
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_" },
      ],
      // Callers may be JavaScript: what the types rule out is checked all the same.
      eqeqeq: "error",
      "no-console": "error",
    },
  },
  // What is deprecated has to be filled all the same.
  { files: ["src/generated/**"], rules: { "@typescript-eslint/no-deprecated": "off" } },
  {
    files: ["examples/**"],
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    },
  },
  { files: ["src/log.ts", "adapter/**", "examples/**", "demo/**"], rules: { "no-console": "off" } },
);
