package io.mq9;

/** A value of a reply is not of the type that the protocol says. */
final class OddValueException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  OddValueException(String message) {
    super(message, null, false, false);
  }

  /** The same inside of something. */
  OddValueException in(String place) {
    String why = String.valueOf(getMessage());
    boolean placed = why.startsWith(".") || why.startsWith("[");
    return new OddValueException(place + (placed ? why : ": " + why));
  }
}
