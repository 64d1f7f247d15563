package io.mq9;

/** Handles the messages of a consumer. */
@FunctionalInterface
public interface MessageHandler {
  /**
   * Handles a message. It may block; its thread is interrupted when the consumer is cancelled.
   *
   * @param message the message
   * @throws Exception if it could not be handled; the message is given back and comes again
   */
  void handle(Message message) throws Exception;
}
