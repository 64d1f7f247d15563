package io.mq9.adapter;

import io.mq9.AdapterAccess;
import io.mq9.Client;
import io.mq9.ConnectOptions;
import io.mq9.Mq9Exception;
import io.nats.client.Connection;
import io.nats.client.Nats;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** The conformance adapter: JSON lines in, JSON lines out; see conformance/ADAPTERS.md. */
public final class Main {
  private static final List<String> FEATURES =
      List.of("consume", "iterate", "keep_alive", "existing_connection");

  private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
  private final ExecutorService threads =
      Executors.newCachedThreadPool(
          action -> {
            var thread = new Thread(action, "adapter");
            thread.setDaemon(true);
            return thread;
          });
  private final Map<String, Client> clients = new ConcurrentHashMap<>();
  private final Map<String, Connection> connections = new ConcurrentHashMap<>();
  private final Map<String, Background> backgrounds = new ConcurrentHashMap<>();
  private final Map<Long, CompletableFuture<?>> calls = new ConcurrentHashMap<>();

  private Main() {}

  /** Runs the adapter until the end of its input. */
  public static void main(String[] args) throws Exception {
    new Main().run();
    System.exit(0);
  }

  private void run() throws IOException, InterruptedException {
    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      @SuppressWarnings("unchecked")
      var request = (Map<String, Object>) AdapterAccess.parse(line);
      serve(request);
    }
    calls.values().forEach(call -> call.cancel(true));
    for (Background background : backgrounds.values()) {
      background.cancel();
    }
    var closes =
        clients.values().stream()
            .map(client -> CompletableFuture.runAsync(client::close, threads))
            .toArray(CompletableFuture<?>[]::new);
    CompletableFuture.allOf(closes).join();
    threads.shutdown();
    threads.awaitTermination(1, TimeUnit.SECONDS);
  }

  void write(Map<String, Object> line) {
    String text = AdapterAccess.text(line);
    synchronized (out) {
      out.print(text + "\n");
      out.flush();
    }
  }

  /** An error in the protocol's form. */
  static Map<String, Object> errorFields(Throwable error) {
    Map<String, Object> fields = new LinkedHashMap<>();
    if (error instanceof Mq9Exception failure) {
      fields.put("kind", Mutant.kind(failure.kind().text()));
      if (failure.code() != null && !Mutant.is("code-dropped")) {
        fields.put("code", failure.code());
      }
      if (failure.field() != null) {
        fields.put("field", failure.field());
      }
      fields.put("message", String.valueOf(failure.getMessage()));
    } else if (error instanceof CancellationException) {
      fields.put("kind", "cancelled");
      fields.put("message", "cancelled");
    } else {
      fields.put("kind", "handler");
      fields.put("message", String.valueOf(error));
    }
    return fields;
  }

  private static Throwable unwrapped(Throwable error) {
    Throwable result = error;
    while ((result instanceof java.util.concurrent.CompletionException
            || result instanceof java.util.concurrent.ExecutionException)
        && result.getCause() != null) {
      result = result.getCause();
    }
    return result;
  }

  private void serve(Map<String, Object> request) {
    long number = (Long) request.get("id");
    String name = (String) request.get("op");
    try {
      Dispatch.Entry entry = Dispatch.OPERATIONS.get(name);
      if (entry == null) {
        // Anything else may block.
        threads.execute(() -> carryOut(number, name, request));
        return;
      }
      Arguments args = arguments(request);
      CompletableFuture<?> call = entry.caller().call(client(request), args);
      args.checkUsed();
      calls.put(number, call);
      Set<String> decode = decode(request);
      call.whenComplete(
          (value, error) -> {
            calls.remove(number);
            answer(
                number,
                () -> {
                  if (error != null) {
                    throw error;
                  }
                  return Out.written(entry.encoder().encode(value, decode));
                });
          });
    } catch (Throwable error) {
      answer(
          number,
          () -> {
            throw error;
          });
    }
  }

  @SuppressWarnings("unchecked")
  private static Set<String> decode(Map<String, Object> request) {
    return Set.copyOf((List<String>) request.getOrDefault("decode", List.of()));
  }

  /** What a request comes to. */
  @FunctionalInterface
  interface Action {
    Object run() throws Throwable;
  }

  private void answer(long number, Action action) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("id", number);
    try {
      line.put("ok", action.run());
    } catch (Throwable wrapped) {
      Throwable error = unwrapped(wrapped);
      if (error instanceof Mq9Exception || error instanceof CancellationException) {
        line.put("error", errorFields(error));
      } else {
        if (!(error instanceof NotUnderstood)) {
          error.printStackTrace();
        }
        line.put("harness_error", String.valueOf(error));
      }
    }
    write(line);
  }

  private void carryOut(long number, String name, Map<String, Object> request) {
    answer(
        number,
        () -> {
          if (request.containsKey("of") && !name.equals("cancel")) {
            Background background = backgrounds.get((String) request.get("of"));
            if (background == null) {
              throw new NotUnderstood("nothing runs as " + request.get("of"));
            }
            return background.command(request);
          }
          switch (name) {
            case "hello":
              return Map.of(
                  "sdk",
                  "java",
                  "sdk_version",
                  "1.0.0",
                  "spec",
                  Dispatch.SPEC_VERSION,
                  "features",
                  FEATURES);
            case "connect":
              return connect(request);
            case "close":
              client(request).close();
              return Map.of();
            case "connection_open":
              return connectionOpen(request);
            case "cancel":
              return cancel(request);
            case "consume":
              return begin(request, new ConsumerRun(this, client(request), request));
            case "iterate":
              return begin(request, new IterationRun(client(request), request));
            case "agent_keep_alive":
              return begin(request, new KeepAliveRun(client(request), request));
            default:
              throw new NotUnderstood("there is no operation " + name);
          }
        });
  }

  private Object begin(Map<String, Object> request, Background background) throws Exception {
    background.start(threads);
    backgrounds.put((String) request.get("as"), background);
    return Map.of();
  }

  private Client client(Map<String, Object> request) {
    Client client = clients.get((String) request.get("client"));
    if (client == null) {
      throw new NotUnderstood("client " + request.get("client") + " was never connected");
    }
    return client;
  }

  @SuppressWarnings("unchecked")
  static Arguments arguments(Map<String, Object> request) {
    return new Arguments((Map<String, Object>) request.getOrDefault("args", Map.of()));
  }

  private Object connect(Map<String, Object> request) throws Exception {
    @SuppressWarnings("unchecked")
    var args = (Map<String, Object>) request.get("args");
    String label = (String) request.get("client");
    var options = ConnectOptions.builder();
    boolean existing = Boolean.TRUE.equals(args.get("existing"));
    Object servers = args.get("servers");
    @SuppressWarnings("unchecked")
    List<String> urls = servers instanceof String text ? List.of(text) : (List<String>) servers;
    for (Map.Entry<String, Object> option : args.entrySet()) {
      Object value = option.getValue();
      switch (option.getKey()) {
        case "existing":
          break;
        case "servers":
          if (!existing) {
            options.servers(urls);
          }
          break;
        case "name":
          options.name((String) value);
          break;
        case "user":
          options.user((String) value);
          break;
        case "password":
          options.password((String) value);
          break;
        case "token":
          options.token((String) value);
          break;
        case "credentials_file":
          options.credentialsFile((String) value);
          break;
        case "timeout_ms":
          options.timeout(Duration.ofMillis((Long) value));
          break;
        case "connect_timeout_ms":
          options.connectTimeout(Duration.ofMillis((Long) value));
          break;
        case "reconnect_wait_ms":
          options.reconnectWait(Duration.ofMillis((Long) value));
          break;
        case "reconnect_wait_max_ms":
          options.reconnectWaitMax(Duration.ofMillis((Long) value));
          break;
        default:
          throw new NotUnderstood("connect has no " + option.getKey());
      }
    }
    if (existing) {
      Connection connection = Nats.connect(urls.get(0));
      connections.put(label, connection);
      options.connection(connection);
    }
    clients.put(label, Mutant.connect(options.build()));
    return Map.of();
  }

  private Object connectionOpen(Map<String, Object> request) throws Exception {
    Connection connection = connections.get((String) request.get("client"));
    boolean open = connection.getStatus() == Connection.Status.CONNECTED;
    if (open) {
      connection.flush(Duration.ofSeconds(5));
    }
    connection.close();
    return open;
  }

  private Object cancel(Map<String, Object> request) throws Exception {
    if (request.containsKey("of")) {
      Background background = backgrounds.get((String) request.get("of"));
      if (background != null) {
        background.cancel();
      }
    } else {
      CompletableFuture<?> call = calls.get((Long) request.get("target"));
      if (call != null) {
        call.cancel(true);
        call.handle((value, error) -> null).get(10, TimeUnit.SECONDS);
      }
    }
    return Map.of("ended", "cancelled");
  }
}
