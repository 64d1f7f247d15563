package io.mq9;

import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * A call under way: it sends its request, and again where that is allowed, until it has a result.
 */
final class Call<T> extends CompletableFuture<T> {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");

  private final Client client;
  private final Request request;
  private final Function<Map<String, @Nullable Object>, T> decode;
  private final long startedAt = System.nanoTime();
  private final long timeoutNanos;
  private final int attempts;
  private int attempt;
  private double pauseMs;
  private volatile @Nullable Pending pending;

  Call(
      Client client,
      Request request,
      long timeoutNanos,
      Function<Map<String, @Nullable Object>, T> decode) {
    this.client = client;
    this.request = request;
    this.decode = decode;
    this.timeoutNanos = timeoutNanos;
    this.attempts = request.repeatable() ? client.tuning.attempts() : 1;
    this.pauseMs = client.tuning.retryPauseMs();
  }

  /**
   * Sends the request; the first time on the caller's thread, so that the order of calls counts.
   */
  void send() {
    if (isDone()) {
      return;
    }
    attempt++;
    long allowed = timeoutNanos;
    if (request.operation().giveUpMs() > 0 && attempt > 1) {
      allowed = Math.min(allowed, giveUpNanos());
    }
    Pending next = client.link.request(request, allowed);
    pending = next;
    next.whenCompleteAsync(this::answered, client.executor);
    if (isCancelled()) {
      released();
    }
  }

  @Override
  public boolean cancel(boolean mayInterruptIfRunning) {
    boolean cancelled = super.cancel(mayInterruptIfRunning);
    if (cancelled) {
      released();
    }
    return cancelled;
  }

  /** After a cancellation. A reply that may bring messages under a lease is still listened for. */
  private void released() {
    Pending current = pending;
    if (current != null && (request.lease() == null || !current.isSent())) {
      current.release();
    }
  }

  private void answered(byte @Nullable [] data, @Nullable Throwable error) {
    if (isCancelled()) {
      if (data != null) {
        client.giveBack(request, data);
      }
      return;
    }
    try {
      if (data == null) {
        throw failure(error);
      }
      T result = Decode.result(Decode.reply(data), decode);
      if (!complete(result)) {
        client.giveBack(request, data);
      }
    } catch (Mq9Exception failed) {
      again(failed.of(request.operation().name()));
    } catch (RuntimeException | Error failed) {
      completeExceptionally(failed);
    }
  }

  private static Mq9Exception failure(@Nullable Throwable error) {
    Throwable cause = error == null ? null : Calls.unwrapped(error);
    return cause instanceof Mq9Exception failed
        ? failed
        : Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, "the request was dropped", cause);
  }

  private void again(Mq9Exception error) {
    long waitNanos =
        (long)
            (pauseMs
                * ThreadLocalRandom.current().nextDouble(1, 1 + Constants.RETRY_JITTER)
                * TimeUnit.MILLISECONDS.toNanos(1));
    boolean late = request.operation().giveUpMs() > 0 && waitNanos >= giveUpNanos();
    boolean allowed = client.tuning.retriesOn(request.operation(), error);
    if (!allowed || attempt >= attempts || late || client.link.isClosed()) {
      completeExceptionally(error);
      return;
    }
    LOGGER.log(
        System.Logger.Level.DEBUG,
        () -> request.operation().name() + ": trying again after: " + error.getMessage());
    pauseMs *= Constants.RETRY_PAUSE_FACTOR;
    client.later(waitNanos, this::send, this);
  }

  private long giveUpNanos() {
    return TimeUnit.MILLISECONDS.toNanos(request.operation().giveUpMs())
        - (System.nanoTime() - startedAt);
  }
}
