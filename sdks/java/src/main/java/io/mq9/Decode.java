package io.mq9;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil
 * all.
 */
final class Decode {
  private static final System.Logger LOGGER = System.getLogger("io.mq9");

  private Decode() {}

  @SuppressWarnings("unchecked") // Json makes no other maps.
  static Map<String, @Nullable Object> members(Object value) {
    if (value instanceof Map<?, ?> members) {
      return (Map<String, @Nullable Object>) members;
    }
    throw new OddValueException("must be an object");
  }

  static Long integer(Object value) {
    if (value instanceof Long number) {
      return number;
    }
    throw new OddValueException("must be a whole number");
  }

  static Double number(Object value) {
    if (value instanceof Number number) {
      return number.doubleValue();
    }
    throw new OddValueException("must be a number");
  }

  static Boolean bool(Object value) {
    if (value instanceof Boolean flag) {
      return flag;
    }
    throw new OddValueException("must be true or false");
  }

  static String text(Object value) {
    if (value instanceof String text) {
      return text;
    }
    throw new OddValueException("must be text");
  }

  static Map<String, @Nullable Object> jsonObject(Object value) {
    return Collections.unmodifiableMap(members(value));
  }

  static Map<String, List<String>> headerMap(Object value) {
    Map<String, List<String>> result = new LinkedHashMap<>();
    Function<Object, List<String>> texts = listOf(Decode::text);
    members(value).forEach((name, values) -> result.put(name, texts.apply(present(values))));
    return Collections.unmodifiableMap(result);
  }

  static <T> Function<Object, List<T>> listOf(Function<Object, T> item) {
    return value -> list(value, item, false);
  }

  /** A list in which an odd item is left out and logged. */
  static <T> Function<Object, List<T>> lenientListOf(Function<Object, T> item) {
    return value -> list(value, item, true);
  }

  private static <T> List<T> list(Object value, Function<Object, T> item, boolean drop) {
    if (!(value instanceof List<?> items)) {
      throw new OddValueException("must be a list");
    }
    List<T> result = new ArrayList<>(items.size());
    for (int index = 0; index < items.size(); index++) {
      try {
        result.add(item.apply(present(items.get(index))));
      } catch (OddValueException error) {
        OddValueException placed = error.in("[" + index + "]");
        if (!drop) {
          throw placed;
        }
        LOGGER.log(
            System.Logger.Level.WARNING, "left an odd item out of a reply: " + placed.getMessage());
      }
    }
    return Collections.unmodifiableList(result);
  }

  private static Object present(@Nullable Object value) {
    if (value == null) {
      throw new OddValueException("must not be null");
    }
    return value;
  }

  static <T> T required(
      Map<String, @Nullable Object> fields, String name, Function<Object, T> decode) {
    Object value = fields.get(name);
    if (value == null) {
      throw new OddValueException("." + name + ": is missing");
    }
    try {
      return decode.apply(value);
    } catch (OddValueException error) {
      throw error.in("." + name);
    }
  }

  static <T> @Nullable T optional(
      Map<String, @Nullable Object> fields, String name, Function<Object, T> decode) {
    return fields.get(name) == null ? null : required(fields, name, decode);
  }

  static <T> T optional(
      Map<String, @Nullable Object> fields, String name, Function<Object, T> decode, T otherwise) {
    return fields.get(name) == null ? otherwise : required(fields, name, decode);
  }

  /** A member that counts as absent when its value is odd. */
  static <T> @Nullable T lenient(
      Map<String, @Nullable Object> fields, String name, Function<Object, T> decode) {
    try {
      return optional(fields, name, decode);
    } catch (OddValueException error) {
      return null;
    }
  }

  static <T> T lenient(
      Map<String, @Nullable Object> fields, String name, Function<Object, T> decode, T otherwise) {
    T value = lenient(fields, name, decode);
    return value == null ? otherwise : value;
  }

  /** Decoded base64, or the UTF-8 of a text that is none; empty if it is missing. */
  static byte[] payload(Map<String, @Nullable Object> fields, String name, String encodingName) {
    if (!(fields.get(name) instanceof String text)) {
      return new byte[0];
    }
    if ("base64".equals(fields.get(encodingName)) && text.length() % 4 == 0) {
      try {
        return Base64.getDecoder().decode(text);
      } catch (IllegalArgumentException error) {
        LOGGER.log(
            System.Logger.Level.WARNING,
            "a message says base64, but its payload is none: taken as text");
      }
    }
    return text.getBytes(StandardCharsets.UTF_8);
  }

  /** The fields of a successful reply. */
  static Map<String, @Nullable Object> reply(byte[] data) {
    Object value;
    try {
      value = Json.parse(data);
    } catch (IOException error) {
      throw Mq9Exception.of(
          ErrorKind.PROTOCOL, "the reply is no JSON: " + error.getMessage(), error);
    }
    if (!(value instanceof Map<?, ?> reply) || !(reply.get("error") instanceof String message)) {
      throw Mq9Exception.of(ErrorKind.PROTOCOL, "the reply is no JSON object with a text `error`");
    }
    if (!message.isEmpty()) {
      boolean coded = reply.get("code") instanceof String code && !code.isEmpty();
      throw Mq9Exception.server(message, coded ? (String) reply.get("code") : null);
    }
    return members(reply);
  }

  static <T> T result(
      Map<String, @Nullable Object> reply, Function<Map<String, @Nullable Object>, T> decode) {
    try {
      return decode.apply(reply);
    } catch (OddValueException error) {
      throw Mq9Exception.of(ErrorKind.PROTOCOL, error.in("reply").getMessage() + "");
    }
  }
}
