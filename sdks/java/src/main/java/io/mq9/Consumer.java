package io.mq9;

import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * A running consumer with a handler; made by {@code Client.consume}.
 *
 * <p>It runs by itself until {@link #stop()}, {@link #close()} or {@link #cancel()}. Each message
 * is waiting, then running, then settled:
 *
 * <pre>
 * FETCH -&gt; waiting -&gt; running -&gt; handler returned -&gt; ACK  -&gt; settled
 *             |          `-----&gt; handler failed  -&gt; error hook, NACK with a growing delay
 *             `-&gt; stop(), cancel() -&gt; NACK
 * </pre>
 */
public final class Consumer implements AutoCloseable {
  private static final ThreadLocal<@Nullable Consumer> INSIDE = new ThreadLocal<>();

  private final Client client;
  private final Client.Part part = this::closeWithClient;
  private final Batches batches;
  private final MessageHandler handler;
  private final CompletableFuture<@Nullable Void> completion = new CompletableFuture<>();
  private final Set<Thread> handling = new HashSet<>();
  private volatile boolean cancelled;

  Consumer(Client client, ConsumeSettings settings, MessageHandler handler) {
    this.client = client;
    this.handler = handler;
    batches = new Batches(client, settings);
  }

  void start() {
    client.add(part);
    client.executor().execute(this::run);
  }

  static boolean isInsideHandler() {
    return INSIDE.get() != null;
  }

  /**
   * Ends the consumer: waits for running handlers and their ACKs, and gives back what was not
   * started.
   *
   * <p>Calling it again is fine. From inside a handler it only asks for the end and returns.
   */
  public void stop() {
    batches.stopping.complete(null);
    if (INSIDE.get() == this) {
      return;
    }
    try {
      completion.get();
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the thread was interrupted", error);
    } catch (CancellationException | ExecutionException error) {
      // It has ended, which is all that was asked for; await() says how.
      return;
    }
  }

  /** Like {@link #stop()}. */
  @Override
  public void close() {
    stop();
  }

  private void closeWithClient() {
    stop();
  }

  /**
   * Ends the consumer at once: interrupts its handlers, and gives back what they had in hand. A
   * handler that returns nevertheless is done with its message.
   */
  public void cancel() {
    synchronized (handling) {
      cancelled = true;
      batches.stopping.complete(null);
      for (Thread thread : handling) {
        thread.interrupt();
      }
    }
  }

  /** Whether it fetches or handles messages. */
  public boolean isRunning() {
    return !completion.isDone();
  }

  /**
   * Waits until the consumer has ended. Interrupting the thread cancels the consumer.
   *
   * @throws Mq9Exception of kind cancelled if it was cancelled
   */
  public void await() {
    try {
      completion.get();
    } catch (InterruptedException error) {
      cancel();
      Thread.currentThread().interrupt();
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the thread was interrupted", error);
    } catch (CancellationException error) {
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the consumer was cancelled", error);
    } catch (ExecutionException error) {
      throw new IllegalStateException("the consumer ended by itself", error.getCause());
    }
  }

  /**
   * The end of the consumer, as a future: it completes when it was stopped, and is cancelled when
   * it was cancelled. Cancelling this copy does not cancel the consumer.
   *
   * @return the future
   */
  public CompletableFuture<@Nullable Void> completion() {
    return completion.copy();
  }

  /** What it has done so far. */
  public ConsumerStats stats() {
    return batches.stats();
  }

  private void run() {
    Throwable failure = null;
    try {
      while (nextBatch()) {
        handleBatch();
        if (!cancelled) {
          Calls.await(batches.giveBackWaiting());
        }
        batches.endOfBatch();
      }
    } catch (RuntimeException | Error error) {
      failure = error;
    } finally {
      batches.stopping.complete(null);
      batches.endOfBatch();
      batches.giveBackAllInBackground();
      client.remove(part);
      if (failure != null) {
        completion.completeExceptionally(failure);
      } else if (cancelled) {
        completion.cancel(false);
      } else {
        completion.complete(null);
      }
    }
  }

  /** Waits for messages; false if it was stopped. */
  private boolean nextBatch() {
    while (!batches.isStopping()) {
      CompletableFuture<FetchResult> fetch = batches.fetch();
      waitUnlessStopped(fetch, 0);
      // What a cancelled FETCH brings is given back by the client; one that was done is taken.
      if (fetch.cancel(true)) {
        return false;
      }
      try {
        batches.take(fetch.join());
      } catch (CancellationException | java.util.concurrent.CompletionException error) {
        if (client.isClosed()) {
          batches.failedFetches.incrementAndGet();
          return false;
        }
        waitUnlessStopped(null, batches.fetchFailed(Calls.unwrapped(error)));
      }
      if (!batches.waiting.isEmpty()) {
        return true;
      }
    }
    return false;
  }

  private void waitUnlessStopped(@Nullable CompletableFuture<?> future, long millis) {
    try {
      if (future == null) {
        batches.stopping.get(millis, TimeUnit.MILLISECONDS);
      } else {
        CompletableFuture.anyOf(future, batches.stopping).get();
      }
    } catch (TimeoutException | ExecutionException | CancellationException error) {
      // Over; the caller looks at what came of it.
      return;
    } catch (InterruptedException error) {
      cancel();
    }
  }

  private void handleBatch() {
    work(batches.settings.concurrency - 1).join();
  }

  /**
   * Handles messages until none waits; before the first, the next worker is started. So handlers
   * begin in the order of the batch.
   */
  private CompletableFuture<?> work(long moreWorkers) {
    CompletableFuture<?> others = CompletableFuture.completedFuture(null);
    boolean first = true;
    while (!batches.isStopping()) {
      Message message = batches.waiting.poll();
      if (message == null) {
        break;
      }
      if (first && moreWorkers > 0 && !batches.waiting.isEmpty()) {
        others =
            CompletableFuture.supplyAsync(() -> work(moreWorkers - 1), client.executor())
                .thenCompose(rest -> rest);
      }
      first = false;
      Throwable error = runHandler(message);
      if (error == null) {
        batches.acknowledge(message);
      } else if (!cancelled) {
        batches.failed.incrementAndGet();
        inside(() -> batches.report(error, message));
        batches.giveBackFailed(message);
      }
    }
    return others;
  }

  private @Nullable Throwable runHandler(Message message) {
    batches.delivered.incrementAndGet();
    synchronized (handling) {
      if (cancelled) {
        return new CancellationException();
      }
      handling.add(Thread.currentThread());
    }
    Throwable failure = null;
    INSIDE.set(this);
    try {
      handler.handle(message);
    } catch (VirtualMachineError error) {
      throw error;
    } catch (Throwable error) {
      failure = error;
    } finally {
      INSIDE.remove();
      synchronized (handling) {
        handling.remove(Thread.currentThread());
        Thread.interrupted(); // Of a cancellation, or of the handler's own; the thread is ours.
      }
    }
    return failure;
  }

  private void inside(Runnable action) {
    INSIDE.set(this);
    try {
      action.run();
    } finally {
      INSIDE.remove();
    }
  }
}
