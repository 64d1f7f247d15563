package io.mq9;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import org.jspecify.annotations.Nullable;

/** A request that waits for its reply, or still for the connection. */
final class Pending extends CompletableFuture<byte[]> {
  final Request request;
  final String token;
  private final Link link;
  private boolean sent;
  private boolean released;
  private @Nullable Future<?> timer;

  Pending(Link link, Request request, String token) {
    this.link = link;
    this.request = request;
    this.token = token;
    whenComplete((data, error) -> forget());
  }

  /** Claims the right to send it; false if nobody wants it any more. */
  synchronized boolean claim() {
    if (released || isDone()) {
      return false;
    }
    sent = true;
    return true;
  }

  synchronized boolean isSent() {
    return sent;
  }

  synchronized void endsWith(Future<?> end) {
    timer = end;
    if (isDone()) {
      end.cancel(false);
    }
  }

  /** Nobody waits for it any more. */
  void release() {
    synchronized (this) {
      released = true;
    }
    cancel(false);
  }

  private synchronized void forget() {
    link.forget(this);
    if (timer != null) {
      timer.cancel(false);
    }
  }
}
