package io.mq9;

import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * The messages of a mailbox, one after the other; made by {@code Client.consume}.
 *
 * <p>No message is asked for before the first is wanted. With {@code autoAck} a message is
 * acknowledged when the next one is asked for; {@link #close()} gives back what was not, the
 * message in hand included.
 *
 * <pre>{@code
 * try (MessageStream messages = client.consume("inbox", "workers")) {
 *   for (Message message : messages) {
 *     handle(message);
 *   }
 * }
 * }</pre>
 *
 * <p>Meant for one thread at a time; {@link #stop()} and {@link #close()} may come from any.
 */
public final class MessageStream implements AutoCloseable, Iterable<Message> {
  private final Client client;
  private final Client.Part part = this::closeWithClient;
  private final Batches batches;
  private final ReentrantLock lock = new ReentrantLock();
  private @Nullable Message current;
  private @Nullable CompletableFuture<FetchResult> fetch;
  private long pauseUntil;
  private boolean pausing;
  private boolean inBatch;
  private volatile boolean ended;

  MessageStream(Client client, ConsumeSettings settings) {
    this.client = client;
    batches = new Batches(client, settings);
    client.add(part);
  }

  /**
   * Waits for the next message, and acknowledges the one before with {@code autoAck}.
   *
   * @param timeout how long to wait
   * @return the message; empty if none came in time or the stream has ended
   * @throws Mq9Exception of kind cancelled if the thread is interrupted
   */
  public Optional<Message> poll(Duration timeout) {
    return Optional.ofNullable(next(timeout));
  }

  /** Whether it may still give messages. */
  public boolean isRunning() {
    return !ended;
  }

  /** What it has done so far. */
  public ConsumerStats stats() {
    return batches.stats();
  }

  /**
   * The messages as an iterator; its {@code hasNext()} waits for one, and is false only when the
   * stream has ended.
   */
  @Override
  public Iterator<Message> iterator() {
    return new Iterator<>() {
      private @Nullable Message ahead;

      @Override
      public boolean hasNext() {
        if (ahead == null) {
          ahead = MessageStream.this.next(null);
        }
        return ahead != null;
      }

      @Override
      public Message next() {
        if (!hasNext() || ahead == null) {
          throw new NoSuchElementException();
        }
        Message result = ahead;
        ahead = null;
        return result;
      }
    };
  }

  /**
   * Asks for the end: the message in hand is acknowledged when the next one is asked for, and then
   * there is none. From any thread; it does not wait.
   */
  public void stop() {
    batches.stopping.complete(null);
    if (lock.tryLock()) {
      try {
        if (current == null) {
          end();
        }
      } finally {
        lock.unlock();
      }
    }
  }

  /** Ends it at once, and gives back what was not acknowledged. Closing twice is fine. */
  @Override
  public void close() {
    batches.stopping.complete(null);
    lock.lock();
    try {
      end();
    } finally {
      lock.unlock();
    }
  }

  private void closeWithClient() {
    batches.stopping.complete(null);
    if (lock.tryLock()) {
      try {
        if (current == null) {
          end();
        } else {
          // The caller may be the loop's own body, which still has its message.
          Calls.await(batches.giveBackWaiting());
        }
      } finally {
        lock.unlock();
      }
    }
  }

  private @Nullable Message next(@Nullable Duration timeout) {
    long deadline = timeout == null ? Long.MAX_VALUE : System.nanoTime() + timeout.toNanos();
    lock.lock();
    try {
      Message done = current;
      current = null;
      if (done != null && !ended) {
        batches.acknowledge(done);
      }
      while (!batches.isStopping() && !ended) {
        Message message = batches.waiting.poll();
        if (message != null) {
          batches.delivered.incrementAndGet();
          current = message;
          return message;
        }
        if (!await(deadline)) {
          return null;
        }
      }
      end();
      return null;
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the thread was interrupted", error);
    } finally {
      lock.unlock();
    }
  }

  /** Waits for what comes next: messages, the end of a pause, a stop. False if the time is over. */
  private boolean await(long deadline) throws InterruptedException {
    if (inBatch) {
      inBatch = false;
      batches.endOfBatch();
    }
    long now = System.nanoTime();
    if (pausing && pauseUntil - now > 0) {
      long nanos =
          deadline == Long.MAX_VALUE ? pauseUntil - now : Math.min(pauseUntil, deadline) - now;
      waitFor(batches.stopping, nanos);
      return deadline == Long.MAX_VALUE || deadline - System.nanoTime() > 0;
    }
    pausing = false;
    CompletableFuture<FetchResult> asked = fetch;
    if (asked == null) {
      asked = batches.fetch();
      fetch = asked;
    }
    waitFor(
        CompletableFuture.anyOf(asked, batches.stopping),
        deadline == Long.MAX_VALUE ? Long.MAX_VALUE : deadline - now);
    if (!asked.isDone()) {
      return batches.isStopping();
    }
    fetch = null;
    try {
      batches.take(asked.join());
      inBatch = !batches.waiting.isEmpty();
    } catch (CancellationException | CompletionException error) {
      if (client.isClosed()) {
        batches.failedFetches.incrementAndGet();
        batches.stopping.complete(null);
      } else {
        long millis = batches.fetchFailed(Calls.unwrapped(error));
        pauseUntil = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
        pausing = true;
      }
    }
    return true;
  }

  private static void waitFor(CompletableFuture<?> future, long nanos) throws InterruptedException {
    try {
      if (nanos == Long.MAX_VALUE) {
        future.get();
      } else {
        future.get(Math.max(0, nanos), TimeUnit.NANOSECONDS);
      }
    } catch (TimeoutException | ExecutionException | CancellationException error) {
      // Over; the caller looks at what came of it.
      return;
    }
  }

  private void end() {
    if (ended) {
      return;
    }
    ended = true;
    current = null;
    CompletableFuture<FetchResult> asked = fetch;
    fetch = null;
    if (asked != null && !asked.cancel(true) && !asked.isCompletedExceptionally()) {
      batches.take(asked.join());
    }
    batches.endOfBatch();
    batches.giveBackAllInBackground();
    client.remove(part);
  }
}
