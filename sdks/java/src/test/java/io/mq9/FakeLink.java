package io.mq9;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.function.Function;

/** A connection that answers by itself. */
final class FakeLink extends Link {
  private static final ScheduledExecutorService TIMER = Executors.newScheduledThreadPool(1);

  final List<Request> requests = new CopyOnWriteArrayList<>();
  private final Function<Request, Object> answer;

  /** The answer is a byte[], a text, or the failure. */
  FakeLink(Function<Request, Object> answer) {
    super(null, null, TIMER);
    this.answer = answer;
  }

  /** A client on top of it, which does not wait long between attempts. */
  Client client() {
    Tuning quick = new Tuning(3, 1, 20, 5, false);
    return new Client(ConnectOptions.DEFAULTS, quick, this);
  }

  @Override
  Pending request(Request request, long timeoutNanos) {
    requests.add(request);
    var pending = new Pending(this, request, Integer.toString(requests.size()));
    pending.claim();
    Object reply = answer.apply(request);
    if (reply instanceof byte[] bytes) {
      pending.complete(bytes);
    } else if (reply instanceof String text) {
      pending.complete(text.getBytes(StandardCharsets.UTF_8));
    } else if (reply instanceof Mq9Exception error) {
      pending.completeExceptionally(error);
    }
    return pending;
  }
}
