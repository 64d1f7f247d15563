package io.mq9;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/** The options of a consumer, checked. */
final class ConsumeSettings {
  final @Nullable ErrorHook onError;
  final @Nullable Duration timeout;
  String mailAddress = "";
  String groupName = "";
  long numMsgs;
  long maxWaitMs;
  long leaseMs;
  long concurrency;
  boolean autoAck;
  FetchOptions start = FetchOptions.DEFAULTS;

  ConsumeSettings(@Nullable ErrorHook onError, @Nullable Duration timeout) {
    if (timeout != null) {
      Values.nanos("timeout", timeout);
    }
    this.onError = onError;
    this.timeout = timeout;
  }

  static String check(String field, TextRule rule, @Nullable String value) {
    return rule.check(field, value);
  }

  static long check(String field, IntegerRule rule, @Nullable Long value) {
    return rule.check(field, value);
  }

  static long check(String field, IntegerRule rule, @Nullable Long value, long otherwise) {
    return value == null ? otherwise : rule.check(field, value);
  }

  static boolean check(String field, @Nullable Boolean value) {
    return Values.isTrue(value);
  }

  static boolean check(String field, @Nullable Boolean value, boolean otherwise) {
    return value == null ? otherwise : value;
  }
}
