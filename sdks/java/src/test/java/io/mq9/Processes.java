package io.mq9;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/** A broker in a process of its own. */
final class Processes implements AutoCloseable {
  final int port;
  private final List<String> more;
  private Process process;

  private Processes(int port, List<String> more) throws IOException {
    this.port = port;
    this.more = more;
    start();
  }

  static Processes broker(String... more) throws IOException {
    return new Processes(freePort(), Arrays.asList(more));
  }

  static int freePort() throws IOException {
    try (var socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return socket.getLocalPort();
    }
  }

  String url() {
    return "nats://127.0.0.1:" + port;
  }

  /** Starts it, again on the same port if it was stopped, and waits until it is ready. */
  void start() throws IOException {
    String program = Objects.requireNonNull(System.getenv("MQ9_BROKER"), "MQ9_BROKER is not set");
    List<String> command = new ArrayList<>(List.of(program, "serve"));
    command.addAll(List.of("--listen", "127.0.0.1:" + port, "--http", "127.0.0.1:0"));
    command.addAll(more);
    process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    var out =
        new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    for (String line = out.readLine(); line != null; line = out.readLine()) {
      if (line.startsWith("mq9-broker ready")) {
        return;
      }
    }
    throw new IOException("the broker ended before it was ready");
  }

  void stop() throws InterruptedException {
    process.destroy();
    if (!process.waitFor(20, TimeUnit.SECONDS)) {
      process.destroyForcibly().waitFor();
    }
  }

  @Override
  public void close() throws InterruptedException {
    stop();
  }
}
