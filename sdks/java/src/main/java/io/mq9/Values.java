package io.mq9;

import java.time.Duration;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Small questions about arguments: which of them count as given. */
final class Values {
  private static final int SHOWN = 60;

  private Values() {}

  static boolean isNotZero(@Nullable Long value) {
    return value != null && value != 0;
  }

  static boolean isTrue(@Nullable Boolean value) {
    return value != null && value;
  }

  static boolean isPresent(@Nullable Object value) {
    return value != null;
  }

  static boolean isNotEmpty(@Nullable CharSequence value) {
    return value != null && value.length() > 0;
  }

  static boolean isNotEmpty(@Nullable Collection<?> value) {
    return value != null && !value.isEmpty();
  }

  static boolean isNotEmpty(@Nullable Map<?, ?> value) {
    return value != null && !value.isEmpty();
  }

  static boolean isEqual(@Nullable Object value, String text) {
    return text.equals(value);
  }

  static <V extends @Nullable Object> Map<String, V> copy(Map<String, ? extends V> values) {
    return Collections.unmodifiableMap(new LinkedHashMap<String, V>(values));
  }

  /** A timeout in nanoseconds; it has to be above zero. */
  static long nanos(String field, Duration timeout) {
    if (timeout.isNegative() || timeout.isZero()) {
      throw Mq9Exception.invalid(field, "must be above 0, not " + timeout);
    }
    return timeout.compareTo(Duration.ofDays(365)) > 0
        ? Duration.ofDays(365).toNanos()
        : timeout.toNanos();
  }

  static String shown(String text) {
    String quoted = '"' + text + '"';
    return quoted.length() <= SHOWN ? quoted : quoted.substring(0, SHOWN - 3) + "...";
  }
}
