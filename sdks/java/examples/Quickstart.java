import io.mq9.Client;
import io.mq9.Deliver;
import io.mq9.FetchOptions;
import io.mq9.MailboxCreateOptions;
import io.mq9.Message;
import io.mq9.Payload;
import io.mq9.Priority;
import io.mq9.SendOptions;
import java.util.Map;

/** The smallest conversation: a mailbox, a message, its receiver. */
public final class Quickstart {
  private Quickstart() {}

  /** Sends a message and receives it. */
  public static void main(String[] args) {
    String url = System.getenv().getOrDefault("MQ9_URL", "nats://127.0.0.1:4222");
    try (Client client = Client.connect(url)) {
      String address = client.mailboxCreate(MailboxCreateOptions.builder().ttl(3600).build());
      client.send(
          address,
          Payload.json(Map.of("task", "greet")),
          SendOptions.builder().priority(Priority.URGENT).build());

      FetchOptions options =
          FetchOptions.builder()
              .groupName("workers")
              .deliver(Deliver.EARLIEST)
              .leaseMs(30_000)
              .build();
      for (Message message : client.fetch(address, options).messages()) {
        System.out.println(message.priority() + " " + message.json());
        client.ack(address, "workers", message.msgId());
      }
    }
  }
}
