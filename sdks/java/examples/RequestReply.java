import io.mq9.Client;
import io.mq9.ConsumeOptions;
import io.mq9.Consumer;
import io.mq9.Deliver;
import io.mq9.Message;
import io.mq9.MessageStream;
import io.mq9.Payload;
import io.mq9.SendOptions;
import java.util.Locale;
import java.util.UUID;

/** A question and its answer, each in a mailbox: nobody has to be online. */
public final class RequestReply {
  private static final ConsumeOptions EARLIEST =
      ConsumeOptions.builder().deliver(Deliver.EARLIEST).build();

  private RequestReply() {}

  /** Asks before anybody is there to answer. */
  public static void main(String[] args) {
    String url = System.getenv().getOrDefault("MQ9_URL", "nats://127.0.0.1:4222");
    try (Client client = Client.connect(url);
        Client server = Client.connect(url)) {
      String address = client.mailboxCreate();
      String inbox = client.mailboxCreate();
      String id = UUID.randomUUID().toString();
      client.send(
          address,
          Payload.text("how are you?"),
          SendOptions.builder().replyTo(inbox).correlationId(id).retry(true).build());

      try (Consumer serving =
              server.consume(address, "servers", question -> answer(server, question), EARLIEST);
          MessageStream answers = client.consume(inbox, "me", EARLIEST)) {
        for (Message answer : answers) {
          if (id.equals(answer.correlationId())) {
            answer.ack();
            System.out.println("answer: " + answer.text());
            break;
          }
        }
        serving.stop();
      }
    }
  }

  private static void answer(Client server, Message question) {
    String replyTo = question.replyTo();
    String id = question.correlationId();
    if (replyTo != null && id != null) {
      server.send(
          replyTo,
          Payload.text(question.text().toUpperCase(Locale.ROOT)),
          SendOptions.builder().correlationId(id).build());
    }
  }
}
