package io.mq9.adapter;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PipedInputStream;
import java.io.PipedOutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * Runs the adapter once against a server that answers everything alike, while the build records
 * which classes it loads: with them archived it starts in half the time.
 */
public final class Training {
  private static final String REPLY =
      "{\"error\":\"\",\"msg_id\":1,\"mail_address\":\"a\",\"deleted\":true,\"renewed\":[1],"
          + "\"agents\":[],\"lease_id\":\"l\",\"messages\":[{\"msg_id\":1,\"payload\":\"YQ==\","
          + "\"encoding\":\"base64\",\"priority\":\"normal\",\"headers\":{\"a\":[\"b\"]},"
          + "\"delivery_count\":1}]}";

  private Training() {}

  /** Runs it. */
  public static void main(String[] args) throws Exception {
    try (var server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
      daemon(() -> accept(server));
      var out = new PipedOutputStream();
      System.setIn(new PipedInputStream(out, 1 << 16));
      daemon(() -> write(out, server.getLocalPort()));
      Main.main(args);
    }
  }

  private static void daemon(Action action) {
    var thread =
        new Thread(
            () -> {
              try {
                action.run();
              } catch (IOException | InterruptedException error) {
                System.err.println("training: " + error);
              }
            });
    thread.setDaemon(true);
    thread.start();
  }

  /** What a thread does. */
  @FunctionalInterface
  private interface Action {
    void run() throws IOException, InterruptedException;
  }

  private static void write(OutputStream out, int port) throws IOException, InterruptedException {
    String box = "\"client\":\"c\",\"args\":{\"mail_address\":\"a\"";
    List<String> lines =
        List.of(
            "{\"id\":1,\"op\":\"hello\"}",
            "{\"id\":2,\"op\":\"connect\",\"client\":\"c\",\"args\":{\"servers\":\"nats://127.0.0.1:"
                + port
                + "\",\"timeout_ms\":300}}",
            "{\"id\":3,\"op\":\"mailbox_create\",\"client\":\"c\",\"args\":{\"name\":\"a\"}}",
            "{\"id\":4,\"op\":\"send\"," + box + ",\"payload_text\":\"x\",\"key\":\"k\"}}",
            "{\"id\":5,\"op\":\"fetch\"," + box + ",\"group_name\":\"g\",\"lease_ms\":1000}}",
            "{\"id\":6,\"op\":\"fetch\"," + box + ",\"num_msgs\":0}}",
            "{\"id\":7,\"op\":\"consume\",\"as\":\"k\"," + box + ",\"group_name\":\"g\"}}",
            "{\"id\":8,\"op\":\"finish\",\"of\":\"k\",\"delivery\":1,\"outcome\":\"fail\"}",
            "{\"id\":9,\"op\":\"finish\",\"of\":\"k\",\"delivery\":2,\"outcome\":\"stop\"}",
            "{\"id\":10,\"op\":\"iterate\",\"as\":\"i\"," + box + ",\"group_name\":\"g\"}}",
            "{\"id\":11,\"op\":\"next\",\"of\":\"i\"}",
            "{\"id\":12,\"op\":\"leave\",\"of\":\"i\"}",
            "{\"id\":13,\"op\":\"mailbox_info\"," + box + "}}",
            "{\"id\":14,\"op\":\"close\",\"client\":\"c\"}");
    for (String line : lines) {
      out.write((line + "\n").getBytes(StandardCharsets.UTF_8));
      out.flush();
      Thread.sleep(150);
    }
    out.close();
  }

  private static void accept(ServerSocket server) throws IOException {
    while (true) {
      Socket socket = server.accept();
      daemon(() -> serve(socket));
    }
  }

  private static void serve(Socket socket) throws IOException {
    try (socket) {
      InputStream in = new BufferedInputStream(socket.getInputStream());
      OutputStream out = socket.getOutputStream();
      send(
          out,
          "INFO {\"server_id\":\"t\",\"version\":\"2.11.0\",\"proto\":1,\"headers\":true,"
              + "\"max_payload\":1048576}\r\n");
      String subscription = "1";
      for (String line = line(in); !line.isEmpty(); line = line(in)) {
        String[] words = line.split(" ", -1);
        if (words[0].equals("PING")) {
          send(out, "PONG\r\n");
        } else if (words[0].equals("SUB")) {
          subscription = words[words.length - 1];
        } else if (words[0].endsWith("PUB")) {
          in.readNBytes(Integer.parseInt(words[words.length - 1]) + 2);
          send(
              out,
              "MSG "
                  + words[2]
                  + " "
                  + subscription
                  + " "
                  + REPLY.length()
                  + "\r\n"
                  + REPLY
                  + "\r\n");
        }
      }
    }
  }

  private static void send(OutputStream out, String text) throws IOException {
    out.write(text.getBytes(StandardCharsets.UTF_8));
    out.flush();
  }

  private static String line(InputStream in) throws IOException {
    var line = new ByteArrayOutputStream();
    for (int next = in.read(); next >= 0 && next != '\n'; next = in.read()) {
      if (next != '\r') {
        line.write(next);
      }
    }
    return line.toString(StandardCharsets.UTF_8);
  }
}
