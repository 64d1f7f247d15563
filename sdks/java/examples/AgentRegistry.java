import io.mq9.AgentKeepAlive;
import io.mq9.AgentRegisterOptions;
import io.mq9.Client;
import io.mq9.Deliver;
import io.mq9.FetchOptions;
import io.mq9.Payload;
import java.util.List;
import java.util.Map;

/** An agent says what it can do; another finds it by that. */
public final class AgentRegistry {
  private static final Map<String, Object> CARD =
      Map.of(
          "description",
          "Counts the words of a text.",
          "skills",
          List.of(Map.of("id", "count-words", "tags", List.of("text", "statistics"))));

  private AgentRegistry() {}

  /** Registers an agent, finds it by a word of its card, and sends it a message. */
  public static void main(String[] args) {
    String url = System.getenv().getOrDefault("MQ9_URL", "nats://127.0.0.1:4222");
    try (Client worker = Client.connect(url);
        Client client = Client.connect(url)) {
      String inbox = worker.mailboxCreate();
      AgentRegisterOptions options =
          AgentRegisterOptions.builder().mailbox(inbox).card(CARD).build();
      try (AgentKeepAlive agent = worker.agentKeepAlive("java-word-counter", options)) {
        System.out.println("registered " + agent.name());
        Map<String, ?> found = client.agentDiscover("statistics").agents().get(0);
        System.out.println("found " + found.get("name") + ": " + found.get("description"));
        client.send(inbox, Payload.text("to be or not to be"));
        FetchOptions earliest = FetchOptions.builder().deliver(Deliver.EARLIEST).build();
        String text = worker.fetch(inbox, earliest).messages().get(0).text();
        System.out.println(text.split(" ", -1).length + " words");
      }
    }
  }
}
