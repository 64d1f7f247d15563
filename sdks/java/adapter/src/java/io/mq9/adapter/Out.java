package io.mq9.adapter;

import io.mq9.AdapterAccess;
import io.mq9.Message;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;

/** A result on its way out: {@link Id} and {@link Json} say what the protocol writes as text. */
final class Out {
  /** A number that travels as text, so that no parser rounds it. */
  record Id(long value) {}

  /** A value that travels as JSON text. */
  record Json(Object value) {}

  private final Map<String, Object> fields = new LinkedHashMap<>();
  private final Set<String> decode;

  Out(Set<String> decode) {
    this.decode = decode;
  }

  static Object id(Object value) {
    return value == null ? null : new Id((Long) value);
  }

  static Object json(Object value) {
    return value == null ? null : new Json(value);
  }

  static <T> List<Object> list(List<T> values, Function<T, Object> item) {
    if (values == null) {
      return null;
    }
    List<Object> result = new ArrayList<>();
    for (T value : values) {
      result.add(item.apply(value));
    }
    return result;
  }

  void put(String name, Object value) {
    if (value != null) {
      fields.put(name, value);
    }
  }

  Object done(Object value) {
    if (value instanceof Message message && decode.contains("text")) {
      fields.put("decoded_text", message.text());
    }
    if (value instanceof Message message && decode.contains("json")) {
      fields.put("decoded_json", AdapterAccess.text(message.json()));
    }
    return fields;
  }

  /** A result as the adapter protocol writes it. */
  static Object written(Object value) {
    if (value instanceof Id id) {
      return Long.toString(Mutant.id(id.value()));
    }
    if (value instanceof Json json) {
      return AdapterAccess.text(json.value());
    }
    if (value instanceof List<?> items) {
      return list(items, Out::written);
    }
    if (value instanceof Map<?, ?> members) {
      Map<String, Object> result = new LinkedHashMap<>();
      members.forEach(
          (name, item) -> {
            if (item instanceof byte[] bytes) {
              result.put(name + "_b64", Base64.getEncoder().encodeToString(bytes));
            } else if (item instanceof Json) {
              result.put(name + "_json", written(item));
            } else {
              result.put((String) name, written(item));
            }
          });
      return result;
    }
    return value;
  }
}
