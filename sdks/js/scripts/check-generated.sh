#!/bin/sh
# Generates this SDK from another specification into a temporary folder, and formats, compiles and lints what comes of it.
# Usage, from the root: sdks/js/scripts/check-generated.sh SPEC_FOLDER. For the nasty one of the generator's tests:
#   .venv/bin/python -c 'import sys; sys.path.insert(0, "codegen/tests"); from pathlib import Path; import overlay
#   overlay.overlay(Path("spec"), Path("codegen/tests/toyspec"), Path("/tmp/nasty"))'
set -e
js=$(cd "$(dirname "$0")/.." && pwd)
root=$(cd "$js/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
copy=$out/sdks/js
mkdir -p "$copy"
for name in src adapter package.json tsconfig.json tsconfig.esm.json eslint.config.js .prettierrc.json; do
  cp -R "$js/$name" "$copy/"
done
rm -rf "$copy"/src/generated "$copy"/adapter/dist "$copy"/adapter/*.ts
ln -s "$js/node_modules" "$copy/node_modules"
"$root/.venv/bin/mq9-codegen" generate --target js --spec "$1" --out "$out"
"$root/.venv/bin/mq9-codegen" generate --target adapter-js --spec "$1" --out "$out"
cd "$copy"
node_modules/.bin/prettier --check --log-level warn src/generated adapter/dispatch.ts
node_modules/.bin/tsc -p .
node_modules/.bin/eslint --max-warnings 0 src/generated adapter/dispatch.ts
