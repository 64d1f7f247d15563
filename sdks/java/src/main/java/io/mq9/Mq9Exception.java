package io.mq9;

import org.jspecify.annotations.Nullable;

/** Every failure that this package reports on purpose. */
public final class Mq9Exception extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final ErrorKind kind;
  private final @Nullable String code;
  private final @Nullable String field;
  private final @Nullable String operation;

  private Mq9Exception(
      ErrorKind kind,
      @Nullable String code,
      @Nullable String field,
      @Nullable String operation,
      @Nullable String message,
      @Nullable Throwable cause) {
    super(message, cause);
    this.kind = kind;
    this.code = code;
    this.field = field;
    this.operation = operation;
  }

  /** How the call failed. */
  public ErrorKind kind() {
    return kind;
  }

  /**
   * The broker's code, such as those of {@link ErrorCode}, also one that this version does not
   * know; null if there is none.
   */
  public @Nullable String code() {
    return code;
  }

  /** The argument that was wrong, as the protocol spells it; null if it was not about one. */
  public @Nullable String field() {
    return field;
  }

  /** The operation that failed, such as {@code msg.send}; null if it was no operation. */
  public @Nullable String operation() {
    return operation;
  }

  static Mq9Exception of(ErrorKind kind, String message) {
    return new Mq9Exception(kind, null, null, null, message, null);
  }

  static Mq9Exception of(ErrorKind kind, String message, @Nullable Throwable cause) {
    return new Mq9Exception(kind, null, null, null, message, cause);
  }

  static Mq9Exception withCode(
      ErrorKind kind, @Nullable String code, String message, @Nullable Throwable cause) {
    return new Mq9Exception(kind, code, null, null, message, cause);
  }

  static Mq9Exception invalid(String field, String why) {
    return invalid(field, why, ErrorCode.INVALID_ARGUMENT);
  }

  static Mq9Exception invalid(String field, String why, String code) {
    return new Mq9Exception(
        ErrorKind.INVALID_ARGUMENT, code, field, null, field + ": " + why, null);
  }

  /** The error for a failed reply; without a code the text decides. */
  static Mq9Exception server(String text, @Nullable String given) {
    String code = given == null ? ErrorTexts.code(text) : given;
    return new Mq9Exception(ErrorKind.SERVER, code, ErrorTexts.field(code, text), null, text, null);
  }

  /** The same failure, of this operation. */
  Mq9Exception of(String name) {
    if (operation != null) {
      return this;
    }
    var result = new Mq9Exception(kind, code, field, name, getMessage(), getCause());
    result.setStackTrace(getStackTrace());
    return result;
  }

  /** The same failure with the stack of the thread that it is thrown to. */
  Mq9Exception here() {
    return new Mq9Exception(kind, code, field, operation, getMessage(), this);
  }
}
