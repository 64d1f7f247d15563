package io.mq9;

import org.jspecify.annotations.Nullable;

/** Learns what went wrong in a consumer. */
@FunctionalInterface
public interface ErrorHook {
  /**
   * Called after a handler or an ACK failed, with the message; and without one after anything else
   * failed. What it throws is logged.
   *
   * @param error what went wrong
   * @param message the message that it was about; null if it was about none
   * @throws Exception of its own; it does not end the consumer
   */
  void onError(Throwable error, @Nullable Message message) throws Exception;
}
