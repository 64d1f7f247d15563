package io.mq9;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import org.jspecify.annotations.Nullable;

/** An agent that is registered until this is closed; made by {@code Client.agentKeepAlive}. */
public final class AgentKeepAlive implements AutoCloseable {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");

  private final Client client;
  private final Client.Part part = this::closeWithClient;
  private final String name;
  private final AgentRegisterOptions options;
  private boolean ended;
  private @Nullable Future<?> timer;
  private @Nullable CompletableFuture<?> running;

  AgentKeepAlive(Client client, String name, AgentRegisterOptions options) {
    this.client = client;
    this.name = name;
    this.options = options.toBuilder().ttl(Constants.AGENT_KEEP_ALIVE_REGISTER_TTL).build();
  }

  void start() {
    client.agentRegister(name, options);
    client.add(part);
    next();
  }

  /** The agent's name. */
  public String name() {
    return name;
  }

  /**
   * Ends the reports and unregisters the agent; calling it again is fine.
   *
   * @throws Mq9Exception if it could not be unregistered; it goes by itself when its ttl is over
   */
  @Override
  public void close() {
    synchronized (this) {
      if (ended) {
        return;
      }
      ended = true;
      if (timer != null) {
        timer.cancel(false);
      }
      if (running != null) {
        running.cancel(true);
      }
    }
    client.remove(part);
    client.agentUnregister(name);
  }

  private void closeWithClient() {
    close();
  }

  private synchronized void next() {
    if (!ended) {
      timer = client.schedule(client.tuning.reportEveryMs(), this::report);
    }
  }

  private void report() {
    CompletableFuture<?> call;
    synchronized (this) {
      if (ended) {
        return;
      }
      call = client.agentReportAsync(name);
      running = call;
    }
    call.whenComplete(
        (nothing, error) -> {
          if (error != null && Calls.isCode(error, ErrorCode.AGENT_NOT_FOUND)) {
            registerAgain();
          } else {
            reported(error);
          }
        });
  }

  private void registerAgain() {
    CompletableFuture<?> call;
    synchronized (this) {
      if (ended) {
        return;
      }
      call = client.agentRegisterAsync(name, options);
      running = call;
    }
    call.whenComplete((nothing, error) -> reported(error));
  }

  private void reported(@Nullable Throwable error) {
    synchronized (this) {
      if (ended) {
        return;
      }
    }
    if (error != null) {
      LOGGER.log(
          System.Logger.Level.WARNING,
          "agent " + name + " could not be reported, trying again later: " + error.getMessage());
    }
    next();
  }
}
