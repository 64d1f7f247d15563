package io.mq9;

import io.nats.client.Connection;
import io.nats.client.ConnectionListener;
import io.nats.client.Dispatcher;
import io.nats.client.impl.Headers;
import io.nats.client.impl.NatsMessage;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * The connection to a NATS server: it carries requests, and comes back by itself when it is lost.
 *
 * <p>The NATS library can reconnect too, but what was published shortly before would be sent later:
 * a FETCH whose caller has given up long ago would then take messages that nobody handles. So every
 * connection here is a fresh one without reconnection:
 *
 * <ul>
 *   <li>A request waits for the connection as long as its timeout allows; if that runs out, nothing
 *       was sent.
 *   <li>A request that was sent when the connection broke fails at once: its reply can't come any
 *       more.
 *   <li>A cancelled request is forgotten; where its reply may bring messages under a lease, that
 *       reply is still listened for.
 * </ul>
 */
class Link {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");
  private static final int HEADER_LINE = "NATS/1.0\r\n\r\n".length();
  private static final long LOOK_MS = 50;
  private static final double JITTER = 0.5;

  private final @Nullable Servers servers;
  private final @Nullable Connection injected;
  private final ScheduledExecutorService timer;
  private final Map<String, Pending> waiting = new ConcurrentHashMap<>();
  private final Deque<Pending> unsent = new ArrayDeque<>();
  private final AtomicLong tokens = new AtomicLong();
  private @Nullable Connection nats;
  private @Nullable Dispatcher dispatcher;
  private String inbox = "";
  private @Nullable Thread reconnecting;
  private volatile boolean closed;

  Link(@Nullable Servers servers, @Nullable Connection injected, ScheduledExecutorService timer) {
    this.servers = servers;
    this.injected = injected;
    this.timer = timer;
  }

  /** Connects to the first server that can be reached. */
  void open() throws InterruptedException {
    if (injected != null) {
      if (injected.getStatus() == Connection.Status.CLOSED) {
        throw Mq9Exception.of(
            ErrorKind.CONNECTION_CLOSED, "the NATS connection that was given is closed");
      }
      attach(injected);
    } else if (servers != null) {
      attach(servers.connect(listener()));
    }
  }

  boolean isClosed() {
    return closed || (injected != null && injected.getStatus() == Connection.Status.CLOSED);
  }

  boolean isInjected() {
    return injected != null;
  }

  synchronized boolean isConnected() {
    return usable() != null;
  }

  synchronized @Nullable String url() {
    Connection current = usable();
    String url = current == null ? null : current.getConnectedUrl();
    return url == null ? null : Servers.redacted(url);
  }

  /** Whether replies are still waited for. */
  boolean isListening() {
    return !waiting.isEmpty();
  }

  private @Nullable Connection usable() {
    Connection current = nats;
    return !closed && current != null && current.getStatus() == Connection.Status.CONNECTED
        ? current
        : null;
  }

  /** Sends a request, as soon as there is a connection; the result is the body of its reply. */
  Pending request(Request request, long timeoutNanos) {
    var pending = new Pending(this, request, Long.toString(tokens.incrementAndGet()));
    String name = request.operation().name();
    if (isClosed()) {
      pending.completeExceptionally(
          Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, name + ": the client is closed"));
      return pending;
    }
    try {
      pending.endsWith(
          timer.schedule(
              () -> timedOut(pending, timeoutNanos), timeoutNanos, TimeUnit.NANOSECONDS));
    } catch (java.util.concurrent.RejectedExecutionException error) {
      pending.completeExceptionally(
          Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, name + ": the client is closed"));
      return pending;
    }
    Connection current;
    synchronized (this) {
      current = unsent.isEmpty() ? usable() : null;
      if (current == null) {
        unsent.add(pending);
      }
    }
    if (current != null) {
      publish(current, pending);
    } else if (injected != null) {
      look();
    }
    return pending;
  }

  /** An injected connection reports its state to its owner, so it is looked at now and then. */
  private void look() {
    if (isClosed()) {
      failAll("the NATS connection is closed", true);
      return;
    }
    sendUnsent();
    synchronized (this) {
      if (unsent.isEmpty() || closed) {
        return;
      }
    }
    timer.schedule(this::look, LOOK_MS, TimeUnit.MILLISECONDS);
  }

  private void sendUnsent() {
    while (true) {
      Connection current;
      Pending next;
      synchronized (this) {
        current = usable();
        next = current == null ? null : unsent.poll();
      }
      if (current == null || next == null) {
        return;
      }
      publish(current, next);
    }
  }

  private void publish(Connection current, Pending pending) {
    Request request = pending.request;
    long size = request.payload().length;
    if (!request.headers().isEmpty()) {
      size += HEADER_LINE;
      for (Map.Entry<String, String> header : request.headers().entrySet()) {
        size += header.getKey().length() + header.getValue().length() + 4;
      }
    }
    if (size > current.getMaxPayload()) {
      pending.completeExceptionally(
          Mq9Exception.invalid(
              "payload",
              size + " bytes with its headers, the server takes at most " + current.getMaxPayload(),
              ErrorCode.PAYLOAD_TOO_LARGE));
      return;
    }
    if (!pending.claim()) {
      return;
    }
    String replyTo;
    synchronized (this) {
      replyTo = inbox + "." + pending.token;
      waiting.put(pending.token, pending);
      if (nats != current) {
        // It broke meanwhile, and who failed the others could not see this one.
        pending.completeExceptionally(
            Mq9Exception.of(
                ErrorKind.CONNECTION_CLOSED, "the connection broke before the reply came"));
      }
    }
    if (pending.isDone()) {
      waiting.remove(pending.token);
      return;
    }
    try {
      Headers headers = null;
      if (!request.headers().isEmpty()) {
        headers = new Headers();
        for (Map.Entry<String, String> header : request.headers().entrySet()) {
          headers.put(header.getKey(), header.getValue());
        }
      }
      current.publish(
          NatsMessage.builder()
              .subject(request.subject())
              .replyTo(replyTo)
              .headers(headers)
              .data(request.payload())
              .build());
    } catch (RuntimeException error) {
      pending.completeExceptionally(
          Mq9Exception.of(
              ErrorKind.CONNECTION_CLOSED,
              request.operation().name() + ": " + error.getMessage(),
              error));
    }
  }

  private void timedOut(Pending pending, long timeoutNanos) {
    String name = pending.request.operation().name();
    double seconds = Math.round(timeoutNanos / 1e6) / 1e3;
    String why =
        pending.isSent()
            ? name + ": no reply within " + seconds + " s"
            : name + ": not connected to a server for " + seconds + " s; nothing was sent";
    pending.completeExceptionally(Mq9Exception.of(ErrorKind.TIMEOUT, why));
  }

  void forget(Pending pending) {
    waiting.remove(pending.token, pending);
    synchronized (this) {
      unsent.remove(pending);
    }
  }

  private void onReply(io.nats.client.Message message) {
    String subject = message.getSubject();
    Pending pending = waiting.get(subject.substring(subject.lastIndexOf('.') + 1));
    if (pending == null) {
      return;
    }
    if (message.isStatusMessage() && message.getStatus().getCode() == 503) {
      pending.completeExceptionally(
          Mq9Exception.of(
              ErrorKind.NO_RESPONDERS,
              pending.request.operation().name() + ": no mq9 broker answers on this NATS server"));
    } else {
      byte[] data = message.getData();
      pending.complete(data == null ? new byte[0] : data);
    }
  }

  // Connecting and reconnecting.

  private ConnectionListener listener() {
    return new ConnectionListener() {
      @Override
      @SuppressWarnings("deprecation") // The only method that has to be there.
      public void connectionEvent(Connection connection, Events event) {
        if (event == Events.DISCONNECTED || event == Events.CLOSED) {
          lost(connection);
        }
      }
    };
  }

  private void attach(Connection fresh) {
    String prefix = fresh.createInbox();
    Dispatcher replies = fresh.createDispatcher(this::onReply);
    replies.setPendingLimits(-1, -1);
    replies.subscribe(prefix + ".*");
    synchronized (this) {
      inbox = prefix;
      dispatcher = replies;
      nats = fresh;
    }
    sendUnsent();
    if (fresh != injected && fresh.getStatus() == Connection.Status.CLOSED) {
      lost(fresh);
    }
  }

  private void lost(Connection connection) {
    List<Pending> failed = new ArrayList<>();
    synchronized (this) {
      if (connection != nats || closed) {
        return;
      }
      nats = null;
      failed.addAll(waiting.values());
      reconnecting = new Thread(this::reconnect, "mq9-reconnect");
      reconnecting.setDaemon(true);
      reconnecting.start();
    }
    fail(failed, "the connection broke before the reply came");
    LOGGER.log(System.Logger.Level.DEBUG, "connection lost, reconnecting");
  }

  private void reconnect() {
    Servers from = servers;
    if (from == null) {
      return;
    }
    double wait = from.reconnectWaitMs();
    try {
      while (!closed) {
        double jittered = wait * ThreadLocalRandom.current().nextDouble(1, 1 + JITTER);
        Thread.sleep((long) Math.min(jittered, from.reconnectWaitMaxMs()));
        wait = Math.min(wait * 2, from.reconnectWaitMaxMs());
        from.rotate();
        try {
          Connection fresh = from.connect(listener());
          if (closed) {
            fresh.close();
            return;
          }
          attach(fresh);
          LOGGER.log(System.Logger.Level.DEBUG, () -> "connected again to " + url());
          return;
        } catch (Mq9Exception error) {
          LOGGER.log(System.Logger.Level.DEBUG, error.getMessage());
        } catch (RuntimeException error) {
          LOGGER.log(System.Logger.Level.WARNING, "reconnecting failed, trying again", error);
        }
      }
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt(); // Closed.
    }
  }

  private void failAll(String why, boolean alsoUnsent) {
    List<Pending> failed = new ArrayList<>(waiting.values());
    if (alsoUnsent) {
      synchronized (this) {
        failed.addAll(unsent);
      }
    }
    fail(failed, why);
  }

  private static void fail(List<Pending> failed, String why) {
    for (Pending pending : failed) {
      pending.completeExceptionally(Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, why));
    }
  }

  /** Makes a round trip, so that what the server has sent so far has been received. */
  void flush(Duration timeout) throws InterruptedException {
    Connection current;
    synchronized (this) {
      current = usable();
    }
    if (current != null) {
      try {
        current.flush(timeout);
      } catch (TimeoutException | IllegalStateException error) {
        LOGGER.log(System.Logger.Level.DEBUG, "no round trip before closing", error);
      }
    }
  }

  /** Waits until replies of cancelled requests have come. */
  void settle(Duration timeout) throws InterruptedException {
    CompletableFuture<?> all =
        CompletableFuture.allOf(waiting.values().toArray(new CompletableFuture<?>[0]));
    try {
      all.get(timeout.toMillis(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException | java.util.concurrent.ExecutionException error) {
      LOGGER.log(System.Logger.Level.DEBUG, "not every reply came before closing", error);
    }
  }

  /** Closes the connection for good; one that was given stays open. */
  void close() throws InterruptedException {
    Connection current;
    Dispatcher replies;
    Thread thread;
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
      current = nats;
      replies = dispatcher;
      thread = reconnecting;
    }
    failAll("the client was closed before the reply came", true);
    if (thread != null) {
      thread.interrupt();
      if (thread != Thread.currentThread()) {
        thread.join();
      }
    }
    if (current == null) {
      return;
    }
    if (current != injected) {
      current.close();
    } else if (replies != null && replies.isActive()) {
      current.closeDispatcher(replies);
    }
  }
}
