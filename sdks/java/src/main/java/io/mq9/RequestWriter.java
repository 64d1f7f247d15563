package io.mq9;

import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Checks the arguments of a call, in the order in which they are given to it, and makes the
 * request.
 *
 * <p>What counts as absent (an empty text, list or object, and 0 or false where that is the
 * default) is left out of it.
 */
final class RequestWriter {
  private static final Pattern HEADER_NAME = Pattern.compile("[A-Za-z0-9\\-_.]+");
  private static final SecureRandom RANDOM = new SecureRandom();
  private static final byte[] NOTHING = {};

  private final Operation operation;
  private final @Nullable Duration timeout;
  private final Map<String, String> headers = new LinkedHashMap<>();
  private String subject = "";
  private @Nullable Map<String, @Nullable Object> body;
  private String bodyField = "";
  private byte[] payload = NOTHING;
  private boolean repeatable = true;
  private long waitMs;
  private Request.@Nullable Lease lease;

  RequestWriter(Operation operation, @Nullable Duration timeout) {
    this.operation = operation;
    this.timeout = timeout;
  }

  void verify(String field, TextRule rule, String value) {
    rule.check(field, value);
  }

  void verify(String field, IntegerRule rule, long value) {
    rule.check(field, value);
  }

  void subject(Object... segments) {
    var joiner = new StringJoiner(".");
    for (Object segment : segments) {
      joiner.add(segment.toString());
    }
    subject = joiner.toString();
  }

  /** Begins a JSON body; {@code field} is named if it turns out to be no JSON. */
  void json(String field) {
    body = new LinkedHashMap<>();
    bodyField = field;
  }

  void constant(String path, Object value) {
    put(path, value);
  }

  void body(String path, String field, TextRule rule, @Nullable String value) {
    if (Values.isNotEmpty(value)) {
      put(path, rule.check(field, value));
    }
  }

  void requiredBody(String path, String field, TextRule rule, @Nullable String value) {
    put(path, rule.check(field, value));
  }

  void body(String path, String field, IntegerRule rule, @Nullable Long value) {
    if (value != null) {
      put(path, rule.check(field, value));
    }
  }

  void requiredBody(String path, String field, IntegerRule rule, long value) {
    put(path, rule.check(field, value));
  }

  void bodyUnlessZero(String path, String field, IntegerRule rule, @Nullable Long value) {
    if (Values.isNotZero(value)) {
      put(path, rule.check(field, value));
    }
  }

  void bodyFlag(String path, String field, @Nullable Boolean value, boolean falseIsAbsent) {
    if (value != null && (value || !falseIsAbsent)) {
      put(path, value);
    }
  }

  void requiredBodyFlag(String path, String field, boolean value, boolean falseIsAbsent) {
    put(path, value);
  }

  void bodyList(
      String path, String field, TextRule rule, @Nullable List<String> values, int low, int high) {
    if (values != null && !values.isEmpty()) {
      requiredBodyList(path, field, rule, values, low, high);
    }
  }

  void requiredBodyList(
      String path, String field, TextRule rule, @Nullable List<String> values, int low, int high) {
    List<Object> checked = new ArrayList<>();
    for (String value : given(field, values)) {
      checked.add(rule.check(field, value));
    }
    put(path, counted(field, checked, low, high));
  }

  void bodyList(
      String path, String field, IntegerRule rule, @Nullable List<Long> values, int low, int high) {
    if (values != null && !values.isEmpty()) {
      requiredBodyList(path, field, rule, values, low, high);
    }
  }

  void requiredBodyList(
      String path, String field, IntegerRule rule, @Nullable List<Long> values, int low, int high) {
    List<Object> checked = new ArrayList<>();
    for (Long value : given(field, values)) {
      checked.add(rule.check(field, value));
    }
    put(path, counted(field, checked, low, high));
  }

  void bodyObject(String path, String field, @Nullable Map<String, ?> value) {
    if (value != null && !value.isEmpty()) {
      put(path, value);
    }
  }

  void requiredBodyObject(String path, String field, Map<String, ?> value) {
    put(path, value);
  }

  /** Puts the members of an object into the body itself; what is there already wins. */
  void spread(String field, @Nullable Map<String, ?> values) {
    if (values != null && body != null) {
      for (Map.Entry<String, ?> member : values.entrySet()) {
        if (!body.containsKey(member.getKey())) {
          body.put(member.getKey(), member.getValue());
        }
      }
    }
  }

  void header(String name, String field, TextRule rule, @Nullable String value) {
    if (Values.isNotEmpty(value)) {
      headers.put(name, TextRule.HEADER.check(field, rule.check(field, value)));
    }
  }

  void header(String name, String field, IntegerRule rule, @Nullable Long value) {
    if (value != null) {
      headers.put(name, Long.toString(rule.check(field, value)));
    }
  }

  void headerUnlessZero(String name, String field, IntegerRule rule, @Nullable Long value) {
    if (Values.isNotZero(value)) {
      header(name, field, rule, value);
    }
  }

  void headerList(
      String name, String field, TextRule rule, @Nullable List<String> values, int low, int high) {
    if (values != null && !values.isEmpty()) {
      for (String value : values) {
        rule.check(field, value);
      }
      counted(field, values, low, high);
      for (String value : values) {
        TextRule.HEADER.check(field, value);
      }
      headers.put(name, String.join(",", values));
    }
  }

  void headers(String field, @Nullable Map<String, String> values, Set<String> reserved) {
    if (values == null) {
      return;
    }
    for (Map.Entry<String, String> header : values.entrySet()) {
      String name = header.getKey();
      if (name == null || !HEADER_NAME.matcher(name).matches()) {
        throw Mq9Exception.invalid(
            field, "a name must be letters, digits and -_. only: " + Values.shown("" + name));
      }
      if (reserved.contains(name.toLowerCase(Locale.ROOT))) {
        throw Mq9Exception.invalid(field, name + " has an option of its own");
      }
      headers.put(name, TextRule.HEADER.check(field, header.getValue()));
    }
  }

  void payload(String field, @Nullable Payload value) {
    if (value == null) {
      throw Mq9Exception.invalid(field, "must not be null");
    }
    payload = value.encode(field);
  }

  void payload(String field, byte @Nullable [] value) {
    if (value == null) {
      throw Mq9Exception.invalid(field, "must not be null");
    }
    payload = value.clone();
  }

  void needs(String field, String why, boolean condition, boolean... present) {
    require(field, why, condition, present);
  }

  /** Under a condition at least one of some arguments is needed. */
  static void require(String field, String why, boolean condition, boolean... present) {
    if (!condition) {
      return;
    }
    for (boolean one : present) {
      if (one) {
        return;
      }
    }
    throw Mq9Exception.invalid(field, why);
  }

  /** It may be sent again under an id only; where repeats are wanted one is made. */
  void repeatableWith(String header, @Nullable String id, @Nullable Boolean wanted) {
    repeatable = Values.isNotEmpty(id);
    if (!repeatable && Values.isTrue(wanted) && !header.isEmpty()) {
      headers.put(header, randomId());
      repeatable = true;
    }
  }

  void waits(@Nullable Long milliseconds, long otherwise) {
    waitMs = milliseconds == null ? otherwise : milliseconds;
  }

  void leases(String mailAddress, @Nullable String groupName, @Nullable Long leaseMs) {
    if (groupName != null && !groupName.isEmpty() && Values.isNotZero(leaseMs)) {
      lease = new Request.Lease(mailAddress, groupName);
    }
  }

  Request build() {
    byte[] data = body == null ? payload : Json.bytes(bodyField, body);
    return new Request(operation, subject, data, headers, timeout, waitMs, repeatable, lease);
  }

  static String randomId() {
    var digits = new StringBuilder();
    while (digits.length() < Constants.RETRY_GENERATED_DEDUP_ID_HEX_DIGITS) {
      digits.append(Character.forDigit(RANDOM.nextInt(16), 16));
    }
    return digits.toString();
  }

  private static <T> List<T> given(String field, @Nullable List<T> values) {
    if (values == null) {
      throw Mq9Exception.invalid(field, "must not be null");
    }
    return values;
  }

  private static <T> List<T> counted(String field, List<T> values, int low, int high) {
    if (values.size() < low) {
      throw Mq9Exception.invalid(
          field,
          low == 1
              ? "must not be empty"
              : "must have at least " + low + " items, not " + values.size());
    }
    if (values.size() > high) {
      throw Mq9Exception.invalid(
          field, "must have at most " + high + " items, not " + values.size());
    }
    return values;
  }

  @SuppressWarnings("unchecked") // The maps on the way were put there by this method.
  private void put(String path, @Nullable Object value) {
    Map<String, @Nullable Object> into = body;
    if (into == null) {
      throw new IllegalStateException("the request has no body");
    }
    int start = 0;
    for (int dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', start)) {
      String name = path.substring(start, dot);
      Object inner = into.get(name);
      if (inner == null) {
        inner = new LinkedHashMap<String, @Nullable Object>();
        into.put(name, inner);
      }
      into = (Map<String, @Nullable Object>) inner;
      start = dot + 1;
    }
    into.put(path.substring(start), value);
  }
}
