package io.mq9.adapter;

/** A request that this adapter does not know how to carry out. */
final class NotUnderstood extends RuntimeException {
  private static final long serialVersionUID = 1L;

  NotUnderstood(String message) {
    super(message);
  }
}
