package io.mq9.adapter;

import io.mq9.Client;
import io.mq9.Message;
import io.mq9.MessageStream;
import io.mq9.Mq9Exception;
import io.mq9.NackOptions;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.LinkedBlockingQueue;

/** A loop over messages whose body asks the runner after each message whether to go on. */
final class IterationRun implements Background {
  /** Stands for a runner that wants to leave the loop. */
  private static final CompletableFuture<Object> LEAVE = new CompletableFuture<>();

  private final MessageStream stream;
  private final Map<Long, Message> messages = new ConcurrentHashMap<>();
  private final LinkedBlockingQueue<CompletableFuture<Object>> wanted = new LinkedBlockingQueue<>();
  private final CompletableFuture<Void> ended = new CompletableFuture<>();
  private ExecutorService threads;
  private volatile Thread loop;
  private boolean begun;

  IterationRun(Client client, Map<String, Object> request) {
    Arguments args = Main.arguments(request);
    var options = Dispatch.consumeOptions(args).build();
    stream = client.consume(args.text("mail_address"), args.text("group_name"), options);
    args.checkUsed();
  }

  @Override
  public void start(ExecutorService threads) {
    this.threads = threads;
  }

  private void iterate() {
    loop = Thread.currentThread();
    CompletableFuture<Object> asked = null;
    try (MessageStream all = stream) {
      asked = wanted.take();
      for (Message message : all) {
        messages.put(message.msgId(), message);
        if (asked == LEAVE) {
          break;
        }
        asked.complete(Out.written(Dispatch.message(message, Set.of())));
        asked = wanted.take();
        if (asked == LEAVE) {
          break;
        }
      }
    } catch (InterruptedException error) {
      Thread.interrupted();
    } catch (Mq9Exception error) {
      Thread.interrupted();
      if (asked != null && asked != LEAVE) {
        asked.completeExceptionally(error);
      }
    } finally {
      ended.complete(null);
      if (asked != null && asked != LEAVE) {
        asked.complete(null);
      }
    }
  }

  private synchronized boolean begin() {
    boolean first = !begun;
    begun = true;
    return first;
  }

  @Override
  public Object command(Map<String, Object> request) throws Exception {
    String name = (String) request.get("op");
    switch (name) {
      case "next":
        var asked = new CompletableFuture<Object>();
        if (ended.isDone()) {
          return null;
        }
        wanted.add(asked);
        if (begin()) {
          threads.execute(this::iterate);
        }
        CompletableFuture.anyOf(asked, ended).get();
        return asked.isDone() ? asked.get() : null;
      case "stop":
      case "leave":
        if (!begun) {
          stream.close();
          return Map.of();
        }
        if (name.equals("stop")) {
          stream.stop();
        } else {
          wanted.add(LEAVE);
        }
        ended.get();
        return Map.of();
      default:
        return ofMessage(name, request);
    }
  }

  private Object ofMessage(String name, Map<String, Object> request) {
    Message message = messages.get(Long.valueOf((String) request.get("msg_id")));
    switch (name) {
      case "message_ack":
        message.ack();
        return Map.of();
      case "message_nack":
        var options = NackOptions.builder();
        if (request.get("delay_ms") instanceof Long delay) {
          options.delayMs(delay);
        }
        message.nack(options.build());
        return Map.of();
      case "message_renew":
        return request.get("lease_ms") instanceof Long lease
            ? message.renew(Duration.ofMillis(lease))
            : message.renew();
      default:
        throw new NotUnderstood("an iteration has no " + name);
    }
  }

  @Override
  public void cancel() {
    if (!begun) {
      stream.close();
      return;
    }
    Thread running = loop;
    if (running != null && !ended.isDone()) {
      running.interrupt();
    }
    ended.join();
  }
}
