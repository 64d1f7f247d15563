package io.mq9;

import io.nats.client.Connection;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * A connection to mq9; safe for use by many threads at once.
 *
 * <p>While the connection is down, a call waits for it as long as its timeout allows and then fails
 * with kind timeout; nothing was sent then. A call that was waiting for its reply when the
 * connection broke fails with kind connection_closed at once, unless it may be tried again.
 *
 * <p>Every operation has a blocking form and one that gives a future. {@code cancel(true)} on that
 * future, or interrupting the thread of a blocking call, releases the request.
 */
public final class Client extends Operations implements AutoCloseable {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");

  /** Set while something of our own may still send although the client closes. */
  private static final ThreadLocal<Boolean> INTERNAL = ThreadLocal.withInitial(() -> false);

  private static final AtomicInteger NUMBERS = new AtomicInteger();

  /** What ends with the client. */
  interface Part {
    /** Ends it, as far as that needs no help of the caller. */
    void closeWithClient();
  }

  final Link link;
  final Tuning tuning;
  final ThreadPoolExecutor executor;
  private final ScheduledThreadPoolExecutor timer;
  private final Duration timeout;
  private final Set<CompletableFuture<?>> calls = ConcurrentHashMap.newKeySet();
  private final Set<CompletableFuture<?>> background = ConcurrentHashMap.newKeySet();
  private final Set<Part> parts = ConcurrentHashMap.newKeySet();
  private final CompletableFuture<@Nullable Void> closing = new CompletableFuture<>();
  private boolean closeBegun;
  private volatile boolean closed;

  Client(ConnectOptions options, Tuning tuning, @Nullable Link given) {
    Connection injected = options.connection;
    timeout =
        options.timeout == null ? Duration.ofMillis(Constants.CONNECT_TIMEOUT_MS) : options.timeout;
    Values.nanos("timeout", timeout);
    Servers servers = injected == null && given == null ? new Servers(options) : null;
    this.tuning = tuning;
    ThreadFactory threads = threads("mq9-" + NUMBERS.incrementAndGet() + "-");
    executor =
        new ThreadPoolExecutor(
            0, Integer.MAX_VALUE, 10, TimeUnit.SECONDS, new SynchronousQueue<>(), threads);
    timer = new ScheduledThreadPoolExecutor(1, threads);
    timer.setRemoveOnCancelPolicy(true);
    timer.setExecuteExistingDelayedTasksAfterShutdownPolicy(false);
    link = given == null ? new Link(servers, injected, timer) : given;
  }

  private static ThreadFactory threads(String prefix) {
    var number = new AtomicInteger();
    return action -> {
      var thread = new Thread(action, prefix + number.incrementAndGet());
      thread.setDaemon(true);
      return thread;
    };
  }

  /**
   * Connects to the first server that can be reached, and reconnects for ever.
   *
   * @param servers server URLs: one, or several with commas between
   * @return a connected client
   * @throws Mq9Exception of kind connection_closed if no server could be reached; with code
   *     unauthorized if one refused the credentials
   */
  public static Client connect(String servers) {
    return connect(ConnectOptions.builder().servers(List.of(servers)).build());
  }

  /**
   * Connects to the first server that can be reached, and reconnects for ever; or takes a NATS
   * connection that is there already.
   *
   * @param options how
   * @return a connected client
   * @throws Mq9Exception of kind connection_closed if no server could be reached; with code
   *     unauthorized if one refused the credentials
   */
  public static Client connect(ConnectOptions options) {
    return connect(options, Tuning.DEFAULT);
  }

  static Client connect(ConnectOptions options, Tuning tuning) {
    var client = new Client(options, tuning, null);
    boolean connected = false;
    try {
      client.link.open();
      connected = true;
      return client;
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the thread was interrupted", error);
    } finally {
      if (!connected) {
        client.executor.shutdown();
        client.timer.shutdownNow();
      }
    }
  }

  /**
   * Connects without blocking; otherwise like {@link #connect(ConnectOptions)}.
   *
   * @param options how
   * @return the client to come; one that comes after a cancellation is closed again
   */
  public static CompletableFuture<Client> connectAsync(ConnectOptions options) {
    var result = new CompletableFuture<Client>();
    Runnable connect =
        () -> {
          try {
            Client client = connect(options);
            if (!result.complete(client)) {
              client.close();
            }
          } catch (RuntimeException | Error error) {
            result.completeExceptionally(error);
          }
        };
    threads("mq9-connect-").newThread(connect).start();
    return result;
  }

  /** Whether it was closed; calls fail then. */
  public boolean isClosed() {
    return closed || link.isClosed();
  }

  /** Whether there is a connection to a server right now. */
  public boolean isConnected() {
    return link.isConnected();
  }

  /** The server that it is connected to, without credentials; null while there is none. */
  public @Nullable String connectedUrl() {
    return link.url();
  }

  /**
   * Ends consumers and keep-alives, waits for calls in flight and closes the connection.
   *
   * <p>It waits for handlers that run, and for at most the client's timeout for calls; what takes
   * longer fails with kind connection_closed. A NATS connection that was given stays open. Closing
   * twice is fine.
   */
  @Override
  public void close() {
    boolean first;
    synchronized (this) {
      first = !closeBegun;
      closeBegun = true;
    }
    if (!first) {
      if (!Consumer.isInsideHandler()) {
        closing.join();
      }
      return;
    }
    try {
      closeOnce();
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    } finally {
      closed = true;
      executor.shutdown();
      timer.shutdownNow();
      closing.complete(null);
    }
  }

  private void closeOnce() throws InterruptedException {
    try {
      for (Part part : parts) {
        try {
          part.closeWithClient();
        } catch (Mq9Exception error) {
          LOGGER.log(System.Logger.Level.WARNING, "while closing: " + error.getMessage());
        }
      }
      closed = true;
      settle(calls);
      settle(background);
      if (link.isListening()) {
        // Cancelled FETCHes that still wait. The end of our own connection ends them at the broker
        // too; on somebody else's they have to be waited for. What they have brought until now is
        // given back.
        if (link.isInjected()) {
          link.settle(timeout.plusMillis(Constants.CONSUME_MAX_WAIT_MS));
        } else {
          link.flush(timeout);
        }
        settle(background);
      }
    } finally {
      closed = true;
      link.close();
    }
  }

  private void settle(Set<CompletableFuture<?>> futures) throws InterruptedException {
    CompletableFuture<?> all =
        CompletableFuture.allOf(futures.toArray(new CompletableFuture<?>[0]));
    try {
      all.get(timeout.toMillis(), TimeUnit.MILLISECONDS);
    } catch (java.util.concurrent.TimeoutException
        | java.util.concurrent.ExecutionException
        | java.util.concurrent.CancellationException error) {
      LOGGER.log(System.Logger.Level.DEBUG, "not everything ended well before closing", error);
    }
  }

  /**
   * Keeps an agent in the registry until it is closed: registers it now, reports it regularly,
   * registers it again when the registry has forgotten it, and unregisters it at the end.
   *
   * @param name the agent's name; an agent of this name is replaced
   * @return the helper; close it at the end
   * @throws Mq9Exception if it could not be registered
   */
  public AgentKeepAlive agentKeepAlive(String name) {
    return agentKeepAlive(name, AgentRegisterOptions.DEFAULTS);
  }

  /**
   * Keeps an agent in the registry until it is closed: registers it now, reports it regularly,
   * registers it again when the registry has forgotten it, and unregisters it at the end.
   *
   * @param name the agent's name; an agent of this name is replaced
   * @param options what it is registered with; its ttl is set here
   * @return the helper; close it at the end
   * @throws Mq9Exception if it could not be registered
   */
  public AgentKeepAlive agentKeepAlive(String name, AgentRegisterOptions options) {
    var helper = new AgentKeepAlive(this, name, options);
    helper.start();
    return helper;
  }

  // What the generated operations stand on.

  @Override
  <T> CompletableFuture<T> execute(
      Supplier<Request> request, Function<Map<String, @Nullable Object>, T> decode) {
    try {
      Request made = request.get();
      String name = made.operation().name();
      if (closed && !INTERNAL.get()) {
        throw Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, name + ": the client is closed")
            .of(name);
      }
      Duration each = made.timeout() == null ? timeout : made.timeout();
      long nanos = Values.nanos("timeout", each) + TimeUnit.MILLISECONDS.toNanos(made.waitMs());
      var call = new Call<T>(this, made, nanos, decode);
      calls.add(call);
      call.whenComplete((result, error) -> calls.remove(call));
      call.send();
      return call;
    } catch (Mq9Exception error) {
      return CompletableFuture.failedFuture(error);
    }
  }

  @Override
  Consumer startConsumer(ConsumeSettings settings, MessageHandler handler) {
    if (handler == null) {
      throw Mq9Exception.invalid("handler", "must not be null");
    }
    checkOpen("consume");
    var consumer = new Consumer(this, settings, handler);
    consumer.start();
    return consumer;
  }

  @Override
  MessageStream openStream(ConsumeSettings settings) {
    checkOpen("consume");
    return new MessageStream(this, settings);
  }

  private synchronized void checkOpen(String what) {
    if (closed || closeBegun) {
      throw Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, what + ": the client is closed");
    }
  }

  void add(Part part) {
    parts.add(part);
  }

  void remove(Part part) {
    parts.remove(part);
  }

  /**
   * Runs something later, on a thread that may block; {@code orElse} fails if the client closes.
   */
  void later(long nanos, Runnable action, CompletableFuture<?> orElse) {
    try {
      timer.schedule(() -> executor.execute(action), nanos, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException error) {
      orElse.completeExceptionally(
          Mq9Exception.of(ErrorKind.CONNECTION_CLOSED, "the client is closed", error));
    }
  }

  /** Schedules something that is over when the client closes. */
  java.util.concurrent.@Nullable Future<?> schedule(long millis, Runnable action) {
    try {
      return timer.schedule(() -> executor.execute(action), millis, TimeUnit.MILLISECONDS);
    } catch (RejectedExecutionException error) {
      return null;
    }
  }

  ExecutorService executor() {
    return executor;
  }

  /** Begins something that must end before the client closes, and may send although it does. */
  void inBackground(Supplier<CompletableFuture<?>> action) {
    boolean before = INTERNAL.get();
    INTERNAL.set(true);
    try {
      CompletableFuture<?> future = action.get();
      background.add(future);
      future.whenComplete((result, error) -> background.remove(future));
    } finally {
      INTERNAL.set(before);
    }
  }

  /** What the reply of a cancelled FETCH under a lease brings goes back. */
  void giveBack(Request request, byte[] data) {
    Request.Lease lease = request.lease();
    if (lease == null) {
      return;
    }
    FetchResult result;
    try {
      result = Decode.result(Decode.reply(data), Decoders::decodeMsgFetch);
    } catch (Mq9Exception error) {
      LOGGER.log(System.Logger.Level.DEBUG, "a cancelled FETCH failed: " + error.getMessage());
      return;
    }
    String leaseId = result.leaseId();
    if (leaseId == null || leaseId.isEmpty() || result.messages().isEmpty()) {
      return;
    }
    List<Long> ids = result.messages().stream().map(Message::msgId).toList();
    var options = NackOptions.builder().leaseId(leaseId).build();
    inBackground(
        () ->
            nackAsync(lease.mailAddress(), lease.groupName(), ids, options)
                .whenComplete(
                    (nothing, error) -> {
                      if (error != null) {
                        LOGGER.log(
                            System.Logger.Level.WARNING,
                            "messages that a cancelled FETCH brought could not be given back: "
                                + error.getMessage());
                      }
                    }));
  }
}
