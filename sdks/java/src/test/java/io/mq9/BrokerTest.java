package io.mq9;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.nats.client.Connection;
import io.nats.client.Nats;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The runtime against a broker. */
@Timeout(120)
class BrokerTest {
  private static Processes broker;
  private Client client;

  @BeforeAll
  static void startBroker() throws IOException {
    broker = Processes.broker();
  }

  @AfterAll
  static void stopBroker() throws InterruptedException {
    broker.close();
  }

  @BeforeEach
  void connect() {
    client = Client.connect(broker.url());
  }

  /** Nothing may be left of a client that was closed. */
  @AfterEach
  void closeAndLookForThreads() throws InterruptedException {
    client.close();
    client.close();
    assertTrue(client.isClosed());
    List<String> left = List.of("?");
    for (int look = 0; look < 600 && !left.isEmpty(); look++) {
      left = threads();
      Thread.sleep(50);
    }
    assertEquals(List.of(), left);
  }

  private static List<String> threads() {
    return Thread.getAllStackTraces().keySet().stream()
        .map(Thread::getName)
        .filter(name -> name.startsWith("mq9-") || name.startsWith("nats:"))
        .toList();
  }

  private static ConsumeOptions.Builder earliest() {
    return ConsumeOptions.builder().deliver(Deliver.EARLIEST);
  }

  @Test
  void messagesComeBackBitForBit() {
    String box = client.mailboxCreate();
    byte[] bytes = new byte[1 << 20 >> 1];
    new Random(1).nextBytes(bytes);
    client.send(box, Payload.bytes(bytes));
    client.send(box, Payload.text("naïve 漢字 😀"));
    client.send(
        box,
        Payload.json(Map.of("n", List.of(9007199254740993L, new BigInteger("9".repeat(30))))),
        SendOptions.builder().priority(Priority.URGENT).key("k").tags(List.of("t")).build());
    List<Message> all = client.query(box, QueryOptions.DEFAULTS);
    assertArrayEquals(bytes, all.get(0).payload());
    assertEquals("naïve 漢字 😀", all.get(1).text());
    assertEquals(
        Map.of("n", List.of(9007199254740993L, new BigInteger("9".repeat(30)))), all.get(2).json());
    assertEquals("urgent", all.get(2).priority());
  }

  @Test
  void aMebibyteGoesThroughAndOneByteMoreIsRefusedBeforeItIsSent() {
    String box = client.mailboxCreate();
    byte[] largest = new byte[1 << 20];
    new Random(2).nextBytes(largest);
    client.send(box, Payload.bytes(largest));
    assertArrayEquals(largest, client.query(box, QueryOptions.DEFAULTS).get(0).payload());
    Mq9Exception error =
        assertThrows(
            Mq9Exception.class, () -> client.send(box, Payload.bytes(new byte[(1 << 20) + 1])));
    assertEquals(ErrorKind.INVALID_ARGUMENT, error.kind());
    assertEquals(ErrorCode.PAYLOAD_TOO_LARGE, error.code());
    assertEquals("payload", error.field());
  }

  @Test
  void cardsKeepEveryDigit() {
    Map<String, Object> card =
        Map.of("price", new BigDecimal("0.10000000000000000001"), "id", 9007199254740993L);
    client.agentRegister("digits", AgentRegisterOptions.builder().card(card).build());
    Map<String, ?> found = client.agentDiscover("digits").agents().get(0);
    assertEquals(card.get("price"), found.get("price"));
    assertEquals(card.get("id"), found.get("id"));
    client.agentUnregister("digits");
  }

  @Test
  void tenThousandMessagesComeInOrder() throws Exception {
    String box = client.mailboxCreate();
    int count = 10_000;
    List<CompletableFuture<Long>> sent = new ArrayList<>();
    for (int number = 0; number < count; number++) {
      sent.add(client.sendAsync(box, Payload.text(Integer.toString(number))));
      if (sent.size() == 500) {
        CompletableFuture.allOf(sent.toArray(new CompletableFuture<?>[0])).join();
        sent.clear();
      }
    }
    CompletableFuture.allOf(sent.toArray(new CompletableFuture<?>[0])).join();
    List<String> got = Collections.synchronizedList(new ArrayList<>());
    var done = new CountDownLatch(count);
    List<Long> ids = Collections.synchronizedList(new ArrayList<>());
    try (Consumer consumer =
        client.consume(
            box,
            "g",
            message -> {
              got.add(message.text());
              ids.add(message.msgId());
              if (ids.size() == 1000) {
                client.ack(box, "g", AckOptions.builder().msgIds(ids).build());
                ids.clear();
              }
              done.countDown();
            },
            earliest().numMsgs(1000).autoAck(false).build())) {
      assertTrue(done.await(100, TimeUnit.SECONDS));
      consumer.stop();
      assertEquals(count, consumer.stats().delivered());
    }
    for (int number = 0; number < count; number++) {
      assertEquals(Integer.toString(number), got.get(number));
    }
    GroupInfo group = client.mailboxInfo(box).groups().get(0);
    assertEquals(0, group.pending() + group.leased());
  }

  @Test
  void aFailedMessageComesAgain() throws Exception {
    String box = client.mailboxCreate();
    client.send(box, Payload.text("a"));
    var attempts = new AtomicInteger();
    var errors = new ArrayList<Throwable>();
    var handled = new CountDownLatch(1);
    MessageHandler handler =
        message -> {
          if (attempts.incrementAndGet() == 1) {
            throw new IOException("not yet");
          }
          handled.countDown();
        };
    try (Consumer consumer =
        client.consume(
            box, "g", handler, earliest().onError((error, message) -> errors.add(error)).build())) {
      assertTrue(handled.await(60, TimeUnit.SECONDS));
      consumer.stop();
      assertEquals(1, consumer.stats().failed());
    }
    assertEquals("not yet", errors.get(0).getMessage());
  }

  @Test
  void slowHandlersKeepTheirMessages() throws Exception {
    String box = client.mailboxCreate();
    client.send(box, Payload.text("slow"));
    var calls = new AtomicInteger();
    var done = new CountDownLatch(1);
    MessageHandler handler =
        message -> {
          calls.incrementAndGet();
          Thread.sleep(3000); // Twice the lease.
          done.countDown();
        };
    try (Consumer consumer = client.consume(box, "g", handler, earliest().leaseMs(1500).build())) {
      assertTrue(done.await(60, TimeUnit.SECONDS));
      consumer.stop();
    }
    assertEquals(1, calls.get());
    assertEquals(0, client.mailboxInfo(box).groups().get(0).pending());
  }

  @Test
  void stopInsideAHandlerReturnsAndGivesBackTheRest() throws Exception {
    String box = client.mailboxCreate();
    for (int number = 0; number < 5; number++) {
      client.send(box, Payload.text("m" + number));
    }
    var self = new CompletableFuture<Consumer>();
    Consumer consumer = client.consume(box, "g", message -> self.get().stop(), earliest().build());
    self.complete(consumer);
    consumer.await();
    assertFalse(consumer.isRunning());
    GroupInfo group = client.mailboxInfo(box).groups().get(0);
    assertEquals(4, group.pending());
    assertEquals(0, group.leased());
  }

  @Test
  void cancelInterruptsTheHandlerAndGivesBack() throws Exception {
    String box = client.mailboxCreate();
    client.send(box, Payload.text("m"));
    var running = new CountDownLatch(1);
    var interrupted = new CountDownLatch(1);
    Consumer consumer =
        client.consume(
            box,
            "g",
            message -> {
              running.countDown();
              try {
                Thread.sleep(60_000);
              } finally {
                interrupted.countDown();
              }
            },
            earliest().build());
    assertTrue(running.await(60, TimeUnit.SECONDS));
    consumer.cancel();
    assertTrue(interrupted.await(60, TimeUnit.SECONDS));
    Mq9Exception error = assertThrows(Mq9Exception.class, consumer::await);
    assertEquals(ErrorKind.CANCELLED, error.kind());
    FetchResult again =
        client.fetch(
            box, FetchOptions.builder().groupName("g").leaseMs(1000).maxWaitMs(20_000).build());
    assertEquals("m", again.messages().get(0).text());
  }

  @Test
  void aCancelledFetchLeavesNothingLeased() throws Exception {
    String box = client.mailboxCreate();
    FetchOptions options =
        FetchOptions.builder().groupName("g").leaseMs(60_000).maxWaitMs(30_000).build();
    CompletableFuture<FetchResult> fetch = client.fetchAsync(box, options);
    client.mailboxInfo(box);
    assertTrue(fetch.cancel(true));
    client.send(box, Payload.text("m"));
    FetchResult again = client.fetch(box, options);
    assertEquals("m", again.messages().get(0).text());
  }

  @Test
  void anInterruptedCallIsCancelledAndTheFlagStays() throws Exception {
    String box = client.mailboxCreate();
    var kind = new AtomicReference<ErrorKind>();
    var flag = new AtomicReference<Boolean>();
    var thread =
        new Thread(
            () -> {
              try {
                client.fetch(box, FetchOptions.builder().maxWaitMs(60_000).build());
              } catch (Mq9Exception error) {
                kind.set(error.kind());
                flag.set(Thread.currentThread().isInterrupted());
              }
            });
    thread.start();
    Thread.sleep(100);
    thread.interrupt();
    thread.join(30_000);
    assertEquals(ErrorKind.CANCELLED, kind.get());
    assertEquals(true, flag.get());
    assertFalse(client.link.isListening());
  }

  @Test
  void theNextServerOfTheListIsUsedAndConsumingGoesOn(@TempDir Path folder) throws Exception {
    try (Processes first = Processes.broker()) {
      ConnectOptions options =
          ConnectOptions.builder()
              .servers(List.of(first.url() + "," + broker.url()))
              .reconnectWait(Duration.ofMillis(50))
              .build();
      try (Client moving = Client.connect(options)) {
        assertEquals(first.url(), moving.connectedUrl());
        first.stop();
        String box = moving.mailboxCreate();
        assertEquals(broker.url(), moving.connectedUrl());
        moving.mailboxInfo(box);
      }
    }
  }

  @Test
  void consumingSurvivesARestartOfTheBroker(@TempDir Path folder) throws Exception {
    try (Processes own = Processes.broker("--store", "rocksdb", "--data", folder.toString());
        Client lasting =
            Client.connect(
                ConnectOptions.builder()
                    .servers(List.of(own.url()))
                    .reconnectWait(Duration.ofMillis(50))
                    .reconnectWaitMax(Duration.ofMillis(200))
                    .build())) {
      String box = lasting.mailboxCreate();
      Set<String> got = Collections.synchronizedSet(new HashSet<>());
      var both = new CountDownLatch(2);
      Consumer consumer =
          lasting.consume(
              box,
              "g",
              message -> {
                if (got.add(message.text())) {
                  both.countDown();
                }
              },
              earliest().onError((error, message) -> {}).build());
      lasting.send(box, Payload.text("before"));
      own.stop();
      own.start();
      lasting.send(
          box,
          Payload.text("after"),
          SendOptions.builder().retry(true).timeout(Duration.ofSeconds(30)).build());
      assertTrue(both.await(90, TimeUnit.SECONDS));
      consumer.close();
    }
  }

  @Test
  void aGivenConnectionStaysOpen() throws Exception {
    try (Connection connection = Nats.connect(broker.url())) {
      Client onTop = Client.connect(ConnectOptions.builder().connection(connection).build());
      String box = onTop.mailboxCreate();
      onTop.close();
      assertEquals(Connection.Status.CONNECTED, connection.getStatus());
      Mq9Exception error = assertThrows(Mq9Exception.class, () -> onTop.mailboxInfo(box));
      assertEquals(ErrorKind.CONNECTION_CLOSED, error.kind());
    }
  }

  @Test
  void theStreamGivesBackWhatWasNotAcknowledged() {
    String box = client.mailboxCreate();
    for (int number = 0; number < 3; number++) {
      client.send(box, Payload.text("m" + number));
    }
    try (MessageStream messages = client.consume(box, "g", earliest().build())) {
      assertEquals("m0", messages.poll(Duration.ofSeconds(30)).orElseThrow().text());
      Message second = messages.poll(Duration.ofSeconds(30)).orElseThrow();
      assertTrue(second.renew());
      assertEquals(1, messages.stats().acknowledged());
    }
    try (MessageStream messages = client.consume(box, "g")) {
      List<String> rest = new ArrayList<>();
      for (Message message : messages) {
        rest.add(message.text());
        if (rest.size() == 2) {
          messages.stop();
        }
      }
      assertEquals(List.of("m1", "m2"), rest);
    }
    assertEquals(0, client.mailboxInfo(box).groups().get(0).pending());
  }

  @Test
  void pollGivesNothingInTimeAndLaterWhatCame() {
    String box = client.mailboxCreate();
    try (MessageStream messages = client.consume(box, "g", earliest().build())) {
      assertTrue(messages.poll(Duration.ofMillis(50)).isEmpty());
      client.send(box, Payload.text("late"));
      assertEquals("late", messages.poll(Duration.ofSeconds(30)).orElseThrow().text());
    }
  }

  @Test
  void codesOfTheBrokerReachTheCaller() {
    Mq9Exception error =
        assertThrows(Mq9Exception.class, () -> client.mailboxInfo("there.is.none"));
    assertEquals(ErrorKind.SERVER, error.kind());
    assertEquals(ErrorCode.MAILBOX_NOT_FOUND, error.code());
    assertEquals("mailbox.info", error.operation());
    assertNull(error.field());
  }

  @Test
  void theKeepAliveRegistersAndUnregisters() {
    try (AgentKeepAlive agent = client.agentKeepAlive("kept")) {
      assertEquals(1, client.agentDiscover("kept").agents().size());
      assertEquals("kept", agent.name());
    }
    assertEquals(0, client.agentDiscover("kept").agents().size());
  }
}
