package io.mq9.adapter;

import io.mq9.AdapterAccess;
import io.mq9.Client;
import io.mq9.ConnectOptions;
import io.mq9.ConsumeOptions;
import io.mq9.Consumer;
import io.mq9.Payload;
import java.nio.charset.StandardCharsets;

/** Broken on purpose, one thing at a time, by MQ9_ADAPTER_MUTANT; see conformance/ADAPTERS.md. */
final class Mutant {
  private static final String NAME = System.getenv().getOrDefault("MQ9_ADAPTER_MUTANT", "");

  private Mutant() {}

  static boolean is(String name) {
    return NAME.equals(name);
  }

  static long id(long value) {
    return is("ids-through-doubles") ? (long) (double) value : value;
  }

  static Payload payload(byte[] bytes) {
    return is("payload-as-text")
        ? Payload.text(new String(bytes, StandardCharsets.UTF_8))
        : Payload.bytes(bytes);
  }

  static String kind(String kind) {
    if (is("kind-always-server")) {
      return "server";
    }
    return is("timeout-as-closed") && kind.equals("timeout") ? "connection_closed" : kind;
  }

  static void stop(Consumer consumer) {
    if (is("stop-does-not-wait")) {
      new Thread(consumer::stop).start();
    } else {
      consumer.stop();
    }
  }

  /** A client, with the runtime broken where that can't be done from outside. */
  static Client connect(ConnectOptions options) {
    return AdapterAccess.connect(
        options, is("never-retries"), is("retries-everything"), is("keep-alive-never-reports"));
  }

  /** The options of a consumer. */
  static ConsumeOptions consume(ConsumeOptions.Builder options) {
    if (is("auto-ack-off")) {
      options.autoAck(false);
    }
    if (is("concurrency-unbounded")) {
      options.concurrency(10);
    }
    return options.build();
  }
}
