package io.mq9;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * What consumers with a handler and streams have in common: fetch under a lease, renew meanwhile,
 * acknowledge or give back. One batch at a time; a lease covers all that is not settled.
 */
final class Batches {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");

  final Client client;
  final ConsumeSettings settings;
  final ConcurrentLinkedQueue<Message> waiting = new ConcurrentLinkedQueue<>();
  final CompletableFuture<@Nullable Void> stopping = new CompletableFuture<>();
  final AtomicLong delivered = new AtomicLong();
  final AtomicLong acknowledged = new AtomicLong();
  final AtomicLong failed = new AtomicLong();
  final AtomicLong givenBack = new AtomicLong();
  final AtomicLong failedAcks = new AtomicLong();
  final AtomicLong failedFetches = new AtomicLong();
  private final Map<Long, Message> unsettled = new LinkedHashMap<>();
  private FetchOptions start;
  private double pauseMs;
  private @Nullable Renewal renewal;

  Batches(Client client, ConsumeSettings settings) {
    this.client = client;
    this.settings = settings;
    start = settings.start;
    pauseMs = client.tuning.fetchPauseMs();
  }

  ConsumerStats stats() {
    return new ConsumerStats(
        delivered.get(),
        acknowledged.get(),
        failed.get(),
        givenBack.get(),
        failedAcks.get(),
        failedFetches.get());
  }

  boolean isStopping() {
    return stopping.isDone();
  }

  /** Asks for the next batch. */
  CompletableFuture<FetchResult> fetch() {
    FetchOptions.Builder options =
        start.toBuilder()
            .groupName(settings.groupName)
            .numMsgs(Math.max(settings.numMsgs, settings.concurrency))
            .maxWaitMs(settings.maxWaitMs)
            .leaseMs(settings.leaseMs);
    if (settings.timeout != null) {
      options.timeout(settings.timeout);
    }
    return client.fetchAsync(settings.mailAddress, options.build());
  }

  /** Takes a batch in hand: from here on everything of it is settled one by one. */
  void take(FetchResult result) {
    start = FetchOptions.DEFAULTS;
    pauseMs = client.tuning.fetchPauseMs();
    String leaseId = result.leaseId() == null ? "" : result.leaseId();
    synchronized (unsettled) {
      for (Message message : result.messages()) {
        message.deliveredBy(
            new Delivery(
                client, settings.mailAddress, settings.groupName, leaseId, settings.leaseMs));
        unsettled.put(message.msgId(), message);
      }
    }
    waiting.addAll(result.messages());
    if (!result.messages().isEmpty()) {
      renewal = new Renewal();
      renewal.next();
    }
  }

  /** After a batch. */
  void endOfBatch() {
    Renewal current = renewal;
    renewal = null;
    if (current != null) {
      current.end();
    }
  }

  /** After a failed FETCH: how long to wait, in milliseconds. */
  long fetchFailed(Throwable error) {
    failedFetches.incrementAndGet();
    report(error, null);
    double jitter =
        ThreadLocalRandom.current().nextDouble(1, 1 + Constants.CONSUME_FETCH_PAUSE_JITTER);
    long result = (long) (pauseMs * jitter);
    pauseMs =
        Math.min(
            pauseMs * Constants.CONSUME_FETCH_PAUSE_FACTOR, Constants.CONSUME_FETCH_PAUSE_MAX_MS);
    return result;
  }

  void settled(Message message) {
    synchronized (unsettled) {
      unsettled.remove(message.msgId());
    }
  }

  /** Confirms a message that was handled, unless that was done by hand. */
  void acknowledge(Message message) {
    if (settings.autoAck && !message.delivery("ack").settled) {
      try {
        message.ack(settings.timeout);
        acknowledged.incrementAndGet();
      } catch (Mq9Exception error) {
        failedAcks.incrementAndGet();
        report(error, message);
      }
    }
    settled(message);
  }

  void giveBackFailed(Message message) {
    Long count = message.deliveryCount();
    Calls.await(giveBack(List.of(message), nackDelayMs(count == null ? 1 : count)));
  }

  /** After stop(): gives back what was not started. */
  CompletableFuture<?> giveBackWaiting() {
    List<Message> messages = new ArrayList<>();
    for (Message message = waiting.poll(); message != null; message = waiting.poll()) {
      messages.add(message);
    }
    return giveBack(messages, 0);
  }

  /** After a cancellation: gives everything back that is still in hand. */
  void giveBackAllInBackground() {
    waiting.clear();
    List<Message> messages;
    synchronized (unsettled) {
      messages = new ArrayList<>(unsettled.values());
    }
    if (!messages.isEmpty()) {
      client.inBackground(() -> giveBack(messages, 0));
    }
  }

  /** NACKs messages of one batch; what fails comes again when its lease is over. */
  CompletableFuture<?> giveBack(List<Message> messages, long delayMs) {
    List<Message> held = new ArrayList<>();
    for (Message message : messages) {
      if (!message.delivery("nack").settled) {
        held.add(message);
      }
      settled(message);
    }
    if (held.isEmpty()) {
      return CompletableFuture.completedFuture(null);
    }
    NackOptions.Builder options =
        NackOptions.builder().leaseId(held.get(0).delivery("nack").leaseId).delayMs(delayMs);
    if (settings.timeout != null) {
      options.timeout(settings.timeout);
    }
    List<Long> ids = held.stream().map(Message::msgId).toList();
    return client
        .nackAsync(settings.mailAddress, settings.groupName, ids, options.build())
        .handle(
            (nothing, error) -> {
              if (error == null) {
                givenBack.addAndGet(held.size());
              } else {
                report(Calls.unwrapped(error), held.size() == 1 ? held.get(0) : null);
              }
              return null;
            });
  }

  /** Runs the error hook, or logs where there is none; a hook that fails is logged too. */
  void report(Throwable error, @Nullable Message message) {
    if (settings.onError == null) {
      String about = message == null ? "the consumer" : "message " + message.msgId();
      String text = where() + ", " + about + ": " + error;
      if (error instanceof Mq9Exception) {
        LOGGER.log(System.Logger.Level.WARNING, text);
      } else {
        LOGGER.log(System.Logger.Level.WARNING, text, error);
      }
      return;
    }
    try {
      settings.onError.onError(error, message);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    } catch (Exception failure) {
      LOGGER.log(System.Logger.Level.WARNING, where() + ": the error hook failed", failure);
    }
  }

  private String where() {
    return settings.mailAddress + ", group " + settings.groupName;
  }

  /** How long a message stays hidden after its handler failed, in milliseconds. */
  static long nackDelayMs(long deliveryCount) {
    double factor = Math.pow(Constants.CONSUME_NACK_DELAY_FACTOR, Math.max(deliveryCount, 1) - 1.0);
    return (long)
        Math.min(Constants.CONSUME_NACK_DELAY_MS * factor, Constants.CONSUME_NACK_DELAY_MAX_MS);
  }

  /** Keeps everything that is not settled hidden from the rest of the group. */
  private final class Renewal {
    private boolean ended;
    private @Nullable Future<?> timer;
    private @Nullable CompletableFuture<?> running;

    synchronized void next() {
      if (!ended) {
        long every = Math.max(1, settings.leaseMs / Constants.CONSUME_RENEW_DIVISOR);
        timer = client.schedule(every, this::renew);
      }
    }

    synchronized void end() {
      ended = true;
      if (timer != null) {
        timer.cancel(false);
      }
      if (running != null) {
        running.cancel(true);
      }
    }

    private void renew() {
      Map<String, List<Long>> held = new LinkedHashMap<>();
      synchronized (unsettled) {
        for (Message message : unsettled.values()) {
          Delivery delivery = message.delivery("renew");
          if (!delivery.settled) {
            held.computeIfAbsent(delivery.leaseId, id -> new ArrayList<>()).add(message.msgId());
          }
        }
      }
      for (Map.Entry<String, List<Long>> lease : held.entrySet()) {
        CompletableFuture<?> call;
        synchronized (this) {
          if (ended) {
            return;
          }
          RenewOptions.Builder options = RenewOptions.builder().leaseId(lease.getKey());
          call =
              client.renewAsync(
                  settings.mailAddress,
                  settings.groupName,
                  lease.getValue(),
                  settings.leaseMs,
                  options.build());
          running = call;
        }
        try {
          Calls.await(call);
        } catch (Mq9Exception error) {
          synchronized (this) {
            if (ended) {
              return;
            }
          }
          report(error, null);
        }
      }
      next();
    }
  }
}
