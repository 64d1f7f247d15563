package io.mq9.adapter;

import io.mq9.Client;
import io.mq9.Consumer;
import io.mq9.Message;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.atomic.AtomicLong;

/** A consumer with a handler. Every handler waits for the runner to say how it ends. */
final class ConsumerRun implements Background {
  private final Main adapter;
  private final Client client;
  private final Map<String, Object> request;
  private final String label;
  private final AtomicLong deliveries = new AtomicLong();
  private final Map<Long, CompletableFuture<String>> outcomes = new ConcurrentHashMap<>();
  private final CompletableFuture<Consumer> consumer = new CompletableFuture<>();
  private final CompletableFuture<Void> reported = new CompletableFuture<>();

  ConsumerRun(Main adapter, Client client, Map<String, Object> request) {
    this.adapter = adapter;
    this.client = client;
    this.request = request;
    this.label = (String) request.get("as");
  }

  @Override
  public void start(ExecutorService threads) {
    Arguments args = Main.arguments(request);
    var options = Dispatch.consumeOptions(args).onError(this::failed);
    String mailAddress = args.text("mail_address");
    String groupName = args.text("group_name");
    args.checkUsed();
    consumer.complete(
        client.consume(mailAddress, groupName, this::handle, Mutant.consume(options)));
    threads.execute(this::waitForEnd);
  }

  private void handle(Message message) throws Exception {
    long number = deliveries.incrementAndGet();
    var outcome = new CompletableFuture<String>();
    outcomes.put(number, outcome);
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "message");
    line.put("of", label);
    line.put("delivery", number);
    line.put("message", Out.written(Dispatch.message(message, Set.of())));
    adapter.write(line);
    String how;
    try {
      how = outcome.get();
    } catch (ExecutionException error) {
      throw new IllegalStateException(error);
    }
    if (how.equals("fail") && !Mutant.is("handler-failure-swallowed")) {
      throw new IllegalStateException("the runner said that this handler fails");
    }
    if (how.equals("stop")) {
      consumer.get().stop();
    }
  }

  private void failed(Throwable error, Message message) {
    Map<String, Object> fields = Main.errorFields(error);
    if (message != null) {
      fields.put("msg_id", Long.toString(message.msgId()));
    }
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "error");
    line.put("of", label);
    line.put("error", fields);
    adapter.write(line);
    if (Boolean.TRUE.equals(request.get("fail_error_hook"))) {
      throw new IllegalStateException("the runner said that the error hook fails");
    }
  }

  private void waitForEnd() {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "ended");
    line.put("of", label);
    try {
      consumer.join().completion().join();
      line.put("how", "stopped");
    } catch (CancellationException error) {
      line.put("how", "cancelled");
    } catch (java.util.concurrent.CompletionException error) {
      boolean cancelled = error.getCause() instanceof CancellationException;
      line.put("how", cancelled ? "cancelled" : "failed");
      if (!cancelled) {
        line.put("error", Main.errorFields(error.getCause()));
      }
    }
    adapter.write(line);
    reported.complete(null);
  }

  @Override
  public Object command(Map<String, Object> command) {
    switch ((String) command.get("op")) {
      case "finish":
        CompletableFuture<String> outcome = outcomes.remove((Long) command.get("delivery"));
        if (outcome != null) {
          outcome.complete((String) command.get("outcome"));
        }
        return Map.of();
      case "stop":
        Mutant.stop(consumer.join());
        return Map.of();
      default:
        throw new NotUnderstood("a consumer has no " + command.get("op"));
    }
  }

  @Override
  public void cancel() {
    if (!consumer.isDone()) {
      return;
    }
    consumer.join().cancel();
    reported.join();
  }
}
