package io.mq9.adapter;

import io.mq9.AgentKeepAlive;
import io.mq9.Client;
import io.mq9.Mq9Exception;
import java.util.Map;
import java.util.concurrent.ExecutorService;

/** An agent that stays registered until it is stopped. */
final class KeepAliveRun implements Background {
  private final Client client;
  private final Map<String, Object> request;
  private AgentKeepAlive keepAlive;

  KeepAliveRun(Client client, Map<String, Object> request) {
    this.client = client;
    this.request = request;
  }

  @Override
  public void start(ExecutorService threads) {
    Arguments args = Main.arguments(request);
    var options = Dispatch.registerOptions(args);
    String name = args.text("name");
    args.checkUsed();
    keepAlive = client.agentKeepAlive(name, options);
  }

  @Override
  public Object command(Map<String, Object> command) {
    if (!"stop".equals(command.get("op"))) {
      throw new NotUnderstood("a keep-alive has no " + command.get("op"));
    }
    if (!Mutant.is("keep-alive-stays-registered")) {
      keepAlive.close();
    }
    return Map.of();
  }

  @Override
  public void cancel() {
    try {
      keepAlive.close();
    } catch (Mq9Exception error) {
      System.err.println("not unregistered: " + error.getMessage());
    }
  }
}
