package io.mq9;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.mq9.adapter.DynamicCalls;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/** One wire vector. */
final class VectorCheck {
  private final Map<String, Object> vector;

  VectorCheck(Map<String, Object> vector) {
    this.vector = vector;
  }

  void run() throws IOException {
    var link = new FakeLink(request -> answer());
    Object result = null;
    Mq9Exception error = null;
    try (Client client = link.client()) {
      result = DynamicCalls.call(client, (String) vector.get("method"), call());
    } catch (Mq9Exception failure) {
      error = failure;
    }
    Map<String, Object> wanted = map(vector.get("request"));
    if (wanted == null) {
      assertTrue(link.requests.isEmpty(), "something was sent");
    } else {
      assertFalse(link.requests.isEmpty(), () -> "nothing was sent");
      for (Request request : link.requests) {
        checkRequest(wanted, request);
      }
    }
    if (vector.get("attempts") != null) {
      assertEquals(vector.get("attempts"), (long) link.requests.size());
    }
    if (Boolean.TRUE.equals(vector.get("is_ok"))) {
      if (error != null) {
        throw error;
      }
      assertEquals(canonical(expected(vector.get("ok"))), canonical(result));
    } else {
      checkError(Objects.requireNonNull(map(vector.get("error"))), error);
    }
  }

  private void checkError(Map<String, Object> wanted, @Nullable Mq9Exception error) {
    assertNotNull(error);
    assertEquals(wanted.get("kind"), error.kind().text());
    if (wanted.containsKey("code")) {
      assertEquals(wanted.get("code"), error.code());
    } else if (!"server".equals(wanted.get("kind"))) {
      assertTrue(error.code() == null || error.kind() == ErrorKind.INVALID_ARGUMENT);
    } else {
      assertNull(error.code());
    }
    if (wanted.containsKey("field")) {
      assertEquals(wanted.get("field"), error.field());
    }
    if (error.operation() != null) {
      assertEquals(vector.get("operation"), error.operation());
    }
  }

  private Map<String, Object> call() {
    Map<String, Object> result = new LinkedHashMap<>();
    Objects.requireNonNull(map(vector.get("call")))
        .forEach(
            (name, value) -> {
              Map<String, Object> payload = name.equals("payload") ? map(value) : null;
              if (payload == null) {
                result.put(name, value);
              } else if (payload.containsKey("text")) {
                result.put(name + "_text", payload.get("text"));
              } else if (payload.containsKey("base64")) {
                result.put(name + "_b64", payload.get("base64"));
              } else {
                result.put(name + "_json", Json.text("payload", payload.get("json")));
              }
            });
    return result;
  }

  private Object answer() {
    Map<String, Object> reply = map(vector.get("reply"));
    if (reply == null) {
      return "{\"error\":\"\"}";
    }
    if (reply.get("status") instanceof String status) {
      return Mq9Exception.of(
          ErrorKind.valueOf(status.toUpperCase(Locale.ROOT)), "as the vector says");
    }
    if (reply.containsKey("json")) {
      return Json.text("reply", reply.get("json"));
    }
    if (reply.get("base64") instanceof String base64) {
      return Base64.getDecoder().decode(base64);
    }
    return Objects.requireNonNull(reply.get("text"));
  }

  private static void checkRequest(Map<String, Object> wanted, Request request) throws IOException {
    assertEquals(wanted.get("subject"), request.subject());
    if (Boolean.TRUE.equals(wanted.get("empty"))) {
      assertEquals(0, request.payload().length);
    }
    if (wanted.containsKey("json")) {
      assertEquals(canonical(wanted.get("json")), canonical(Json.parse(request.payload())));
    }
    Map<String, Object> payload = map(wanted.get("payload"));
    if (payload != null && payload.containsKey("json")) {
      assertEquals(canonical(payload.get("json")), canonical(Json.parse(request.payload())));
    } else if (payload != null) {
      assertArrayEquals(bytes(payload), request.payload());
    }
    if (wanted.containsKey("headers")) {
      assertEquals(wanted.get("headers"), request.headers());
    }
    if (wanted.get("forbid_headers") instanceof List<?> patterns) {
      for (Object pattern : patterns) {
        String start = pattern.toString().replace("*", "").toLowerCase(Locale.ROOT);
        for (String name : request.headers().keySet()) {
          assertFalse(name.toLowerCase(Locale.ROOT).startsWith(start), name);
        }
      }
    }
  }

  private static byte[] bytes(Map<String, Object> payload) {
    return payload.get("base64") instanceof String base64
        ? Base64.getDecoder().decode(base64)
        : ((String) Objects.requireNonNull(payload.get("text"))).getBytes(StandardCharsets.UTF_8);
  }

  /** A result as the specification writes it, with payloads in base64. */
  private static @Nullable Object expected(@Nullable Object value) {
    if (value instanceof Map<?, ?> members) {
      Map<String, Object> result = new LinkedHashMap<>();
      members.forEach(
          (name, item) -> {
            Map<String, Object> payload = name.equals("payload") ? map(item) : null;
            result.put(
                (String) name,
                payload == null
                    ? expected(item)
                    : Base64.getEncoder().encodeToString(bytes(payload)));
          });
      return result;
    }
    return value instanceof List<?> items
        ? items.stream().map(VectorCheck::expected).toList()
        : value;
  }

  /** JSON text that tells 1, 1.0 and true apart and not the order of members. */
  private static String canonical(@Nullable Object value) {
    return Json.text("value", sorted(value));
  }

  private static @Nullable Object sorted(@Nullable Object value) {
    if (value instanceof Map<?, ?> members) {
      Map<String, Object> result = new TreeMap<>();
      members.forEach((name, item) -> result.put((String) name, sorted(item)));
      return result;
    }
    if (value instanceof Double number && number == Math.rint(number)) {
      return number.longValue(); // A field of type number: 1 and 1.0 are the same.
    }
    return value instanceof List<?> items
        ? items.stream().map(VectorCheck::sorted).toList()
        : value;
  }

  @SuppressWarnings("unchecked")
  private static @Nullable Map<String, Object> map(@Nullable Object value) {
    return value instanceof Map<?, ?> ? (Map<String, Object>) value : null;
  }
}
