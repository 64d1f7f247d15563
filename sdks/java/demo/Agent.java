import io.mq9.AgentKeepAlive;
import io.mq9.AgentRegisterOptions;
import io.mq9.Client;
import io.mq9.ConnectOptions;
import io.mq9.ConsumeOptions;
import io.mq9.Consumer;
import io.mq9.Deliver;
import io.mq9.ErrorCode;
import io.mq9.MailboxCreateOptions;
import io.mq9.Message;
import io.mq9.Mq9Exception;
import io.mq9.Payload;
import io.mq9.SendOptions;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * An agent of {@code make demo}: counts the words of texts from a mailbox that it shares with its
 * colleagues. What it tells, reads and sends is the same in every language; see demo/README.md.
 */
public final class Agent {
  private static final String URL = System.getenv("MQ9_URL");
  private static final String NAME = System.getenv("MQ9_NAME");
  private static final String MAILBOX = System.getenv("MQ9_MAILBOX");
  private static final long THINK_MS =
      Long.parseLong(System.getenv().getOrDefault("MQ9_THINK_MS", "0"));
  private static final Map<String, Object> CARD =
      Map.of(
          "description",
          "counts the words of a text, in Java",
          "skills",
          List.of(Map.of("id", "count-words")),
          "language",
          "Java");
  private static final Pattern LONG_WORD = Pattern.compile("[A-Za-z]{4,}");
  private static final Pattern WORD = Pattern.compile("[^ \\t\\r\\n\\x0b\\f]+");

  private Agent() {}

  private static void tell(String event) {
    System.out.println(event);
    System.out.flush();
  }

  /** The number of words, and the n most frequent ones of four letters or more. */
  private static Map<String, Object> count(String text, long n) {
    Map<String, Long> frequent = new TreeMap<>();
    Matcher words = LONG_WORD.matcher(text);
    while (words.find()) {
      frequent.merge(words.group().toLowerCase(Locale.ROOT), 1L, Long::sum);
    }
    List<List<Object>> top =
        frequent.entrySet().stream()
            .sorted(Map.Entry.comparingByValue(Comparator.reverseOrder()))
            .limit(n)
            .map(entry -> List.<Object>of(entry.getKey(), entry.getValue()))
            .toList();
    Map<String, Object> result = new LinkedHashMap<>();
    result.put("words", WORD.matcher(text).results().count());
    result.put("top", top);
    return result;
  }

  private static void handle(Client client, Message message) throws InterruptedException {
    Map<?, ?> task = (Map<?, ?>) message.json();
    if (task == null) {
      return;
    }
    Object document = task.get("document");
    tell(
        "began "
            + document
            + " priority="
            + message.priority()
            + " delivery="
            + message.deliveryCount());
    Thread.sleep(THINK_MS);
    Map<String, Object> answer = new LinkedHashMap<>();
    answer.put("agent", NAME);
    answer.put("language", "Java");
    answer.put("document", document);
    answer.putAll(count((String) task.get("text"), (Long) task.get("n")));
    SendOptions.Builder options = SendOptions.builder().priority(message.priority());
    String id = message.correlationId();
    if (id != null) {
      options.correlationId(id);
    }
    String replyTo = message.replyTo();
    client.send(replyTo == null ? "" : replyTo, Payload.json(answer), options.build());
    tell("did " + document + " words=" + answer.get("words"));
  }

  /** Registers, waits for the word {@code work}, works until SIGTERM. */
  public static void main(String[] args) {
    CountDownLatch ended = new CountDownLatch(1);
    Thread main = Thread.currentThread();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  main.interrupt();
                  try {
                    ended.await();
                  } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                  }
                  Runtime.getRuntime().halt(0);
                }));
    try {
      run();
    } finally {
      ended.countDown();
    }
  }

  private static void run() {
    ConnectOptions options = ConnectOptions.builder().servers(List.of(URL)).name(NAME).build();
    AgentRegisterOptions register =
        AgentRegisterOptions.builder().mailbox(MAILBOX).card(CARD).build();
    try (Client client = Client.connect(options)) {
      try {
        client.mailboxCreate(MailboxCreateOptions.builder().name(MAILBOX).ttl(600).build());
      } catch (Mq9Exception error) {
        if (!ErrorCode.MAILBOX_EXISTS.equals(error.code())) {
          throw error;
        }
        // A colleague was first.
      }
      try (AgentKeepAlive agent = client.agentKeepAlive(NAME, register)) {
        tell("ready");
        if (isTold(agent.name())) {
          serve(client);
        }
      }
    }
  }

  private static boolean isTold(String name) {
    try {
      BufferedReader in =
          new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
      while (!in.ready()) {
        Thread.sleep(20); // A read could not be interrupted.
      }
      return "work".equals(in.readLine());
    } catch (InterruptedException error) {
      return false;
    } catch (IOException error) {
      throw new IllegalStateException(name + " can't read its standard input", error);
    }
  }

  private static void serve(Client client) {
    ConsumeOptions options =
        ConsumeOptions.builder()
            .deliver(Deliver.EARLIEST)
            .numMsgs(1)
            .leaseMs(2000)
            .maxWaitMs(1000)
            .build();
    Consumer consumer =
        client.consume(MAILBOX, "workers", message -> handle(client, message), options);
    try {
      consumer.await();
    } catch (Mq9Exception error) {
      // SIGTERM. The flag goes, so that the registration can be taken back.
      Thread.interrupted();
    }
    consumer.stop();
  }
}
