package io.mq9;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** What the adapter and the tests need of the SDK's inside. */
public final class AdapterAccess {
  private AdapterAccess() {}

  /** JSON without losing a digit. */
  public static @Nullable Object parse(String text) {
    try {
      return Json.parse(text);
    } catch (IOException error) {
      throw new IllegalArgumentException(error);
    }
  }

  /** A JSON value as text. */
  public static String text(@Nullable Object value) {
    return Json.text("value", value);
  }

  /** The failure for an argument that the language does not let through. */
  public static Mq9Exception refused(String field, String why) {
    return Mq9Exception.invalid(field, why);
  }

  /** A client whose runtime is broken on purpose, or not at all. */
  public static Client connect(
      ConnectOptions options, boolean neverRetries, boolean retriesAll, boolean neverReports) {
    Tuning plain = Tuning.DEFAULT;
    return Client.connect(
        options,
        new Tuning(
            neverRetries ? 1 : plain.attempts(),
            plain.retryPauseMs(),
            neverReports ? Integer.MAX_VALUE : plain.reportEveryMs(),
            plain.fetchPauseMs(),
            retriesAll));
  }
}
