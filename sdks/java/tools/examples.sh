# Runs every example; starts a broker if MQ9_URL names none. From sdks/java, after `make adapter`.
set -eu
classpath="target/adapter.jar:$(cat target/libraries.classpath)"
broker=""
trap 'if [ -n "$broker" ]; then kill "$broker"; wait "$broker" 2>/dev/null || true; fi' EXIT
if [ -z "${MQ9_URL:-}" ]; then
  : > target/broker.log
  "$MQ9_BROKER" serve --listen 127.0.0.1:0 --http 127.0.0.1:0 >> target/broker.log 2>&1 &
  broker=$!
  tries=0
  while ! grep -q '^mq9-broker ready' target/broker.log; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then cat target/broker.log; exit 1; fi
    sleep 0.1
  done
  MQ9_URL=$(sed -n 's/^mq9-broker ready nats=\([^ ]*\).*/\1/p' target/broker.log)
  export MQ9_URL
fi
for file in examples/*.java; do
  name=$(basename "$file" .java)
  if ! timeout 60 java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$classpath" "$name" > "target/example-$name.log" 2>&1; then
    echo "example $name failed:"
    cat "target/example-$name.log"
    exit 1
  fi
done
# What the README says that its quickstart prints, and the quickstart's code itself.
grep -q '^urgent {task=greet}$' target/example-Quickstart.log || { echo "the quickstart prints something else than the README says"; exit 1; }
