package io.mq9;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The methods of {@link Message}. Its fields are generated. */
abstract class MessageBase extends MessageHeaders {
  private volatile @Nullable Delivery delivery;

  MessageBase() {}

  abstract long msgId();

  abstract byte[] payload();

  /**
   * The payload as text.
   *
   * @return the text
   * @throws UncheckedIOException if it is not UTF-8
   */
  public String text() {
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(payload())).toString();
    } catch (CharacterCodingException error) {
      throw new UncheckedIOException("message " + msgId() + " is not UTF-8", error);
    }
  }

  /**
   * The payload as a JSON value.
   *
   * @return null, a Boolean, a String, a Long, a BigInteger (whole numbers beyond a Long), a
   *     BigDecimal (all other numbers), a List or a Map
   * @throws UncheckedIOException if it is not JSON in UTF-8
   */
  public @Nullable Object json() {
    try {
      return Json.parse(payload());
    } catch (IOException error) {
      throw new UncheckedIOException("message " + msgId() + " is no JSON", error);
    }
  }

  /**
   * Confirms this message for its consumer group: it never comes again.
   *
   * <p>Only for messages that {@code consume} delivered; others are confirmed by {@code
   * Client.ack}.
   *
   * @throws Mq9Exception if it could not be confirmed; it comes again when its lease is over
   */
  public void ack() {
    ack(null);
  }

  final void ack(@Nullable Duration timeout) {
    Delivery from = delivery("ack");
    var options = AckOptions.builder().msgId(msgId());
    if (timeout != null) {
      options.timeout(timeout);
    }
    from.client.ack(from.mailAddress, from.groupName, options.build());
    from.settled = true;
  }

  /**
   * Gives this message back to its consumer group, at once, unless another consumer holds it by
   * now.
   *
   * @throws Mq9Exception if it could not be given back; it comes again when its lease is over
   */
  public void nack() {
    nack(NackOptions.DEFAULTS);
  }

  /**
   * Gives this message back to its consumer group, unless another consumer holds it by now.
   *
   * @param options how; the lease is filled in
   * @throws Mq9Exception if it could not be given back; it comes again when its lease is over
   */
  public void nack(NackOptions options) {
    Delivery from = delivery("nack");
    from.client.nack(
        from.mailAddress,
        from.groupName,
        List.of(msgId()),
        options.toBuilder().leaseId(from.leaseId).build());
    from.settled = true;
  }

  /**
   * Keeps this message hidden from the rest of its group for another lease as long as the one that
   * it came under. {@code consume} does so by itself while a handler runs.
   *
   * @return whether it is still ours; if not, its lease was over before
   * @throws Mq9Exception if it could not be renewed
   */
  public boolean renew() {
    return renew(Duration.ofMillis(delivery("renew").leaseMs));
  }

  /**
   * Keeps this message hidden from the rest of its group for longer.
   *
   * @param lease how long, from now
   * @return whether it is still ours; if not, its lease was over before
   * @throws Mq9Exception if it could not be renewed
   */
  public boolean renew(Duration lease) {
    Delivery from = delivery("renew");
    return from.client
        .renew(
            from.mailAddress,
            from.groupName,
            List.of(msgId()),
            lease.toMillis(),
            RenewOptions.builder().leaseId(from.leaseId).build())
        .contains(msgId());
  }

  @Override
  public String toString() {
    return "Message " + msgId() + " (" + payload().length + " bytes)";
  }

  final void deliveredBy(Delivery from) {
    delivery = from;
  }

  final Delivery delivery(String method) {
    Delivery from = delivery;
    if (from == null) {
      throw Mq9Exception.invalid(
          "message",
          "message "
              + msgId()
              + " did not come from consume: call the client's "
              + method
              + " instead");
    }
    return from;
  }
}
