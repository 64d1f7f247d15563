import io.mq9.Client;
import io.mq9.ConsumeOptions;
import io.mq9.Consumer;
import io.mq9.Deliver;
import io.mq9.Payload;
import io.mq9.SendOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;

/** Three workers share a mailbox; one job fails at first and comes again. */
public final class WorkerPool {
  private static final int JOBS = 12;

  private WorkerPool() {}

  /** Sends jobs, lets the pool work, and shows what was done. */
  public static void main(String[] args) throws InterruptedException {
    String url = System.getenv().getOrDefault("MQ9_URL", "nats://127.0.0.1:4222");
    Set<Integer> done = new ConcurrentSkipListSet<>();
    CountDownLatch all = new CountDownLatch(JOBS);
    try (Client client = Client.connect(url)) {
      String address = client.mailboxCreate();
      for (int number = 0; number < JOBS; number++) {
        SendOptions safe = SendOptions.builder().retry(true).build();
        client.send(address, Payload.text(Integer.toString(number)), safe);
      }
      ConsumeOptions options =
          ConsumeOptions.builder()
              .deliver(Deliver.EARLIEST)
              .concurrency(2)
              .onError((error, message) -> System.out.println(error.getMessage()))
              .build();
      List<Consumer> pool = new ArrayList<>();
      for (int worker = 0; worker < 3; worker++) {
        pool.add(
            client.consume(
                address,
                "workers",
                message -> {
                  int number = Integer.parseInt(message.text());
                  Long delivery = message.deliveryCount();
                  if (number == 5 && delivery != null && delivery == 1) {
                    throw new IllegalStateException("job 5 does not like to be first");
                  }
                  if (done.add(number)) {
                    all.countDown();
                  }
                },
                options));
      }
      all.await();
      pool.forEach(Consumer::stop);
    }
    System.out.println("jobs done: " + done);
  }
}
