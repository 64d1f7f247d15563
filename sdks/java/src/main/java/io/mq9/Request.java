package io.mq9;

import java.time.Duration;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A request, checked and in the form that is sent.
 *
 * @param operation what is asked for
 * @param subject where it goes
 * @param payload its body
 * @param headers its headers, one value a name
 * @param timeout how long each attempt waits; null = as long as the client says
 * @param waitMs milliseconds that the broker may take on top
 * @param repeatable whether it may be tried again at all
 * @param lease whose messages the reply may bring under a lease; null = nobody's
 */
record Request(
    Operation operation,
    String subject,
    byte[] payload,
    Map<String, String> headers,
    @Nullable Duration timeout,
    long waitMs,
    boolean repeatable,
    @Nullable Lease lease) {

  /** A mailbox, and a consumer group that may hold messages of it. */
  record Lease(String mailAddress, String groupName) {}
}
