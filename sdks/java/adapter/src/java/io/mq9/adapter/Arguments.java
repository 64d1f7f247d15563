package io.mq9.adapter;

import io.mq9.AdapterAccess;
import io.mq9.Payload;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;

/** The arguments of a request. One that is not there is not passed to the SDK. */
final class Arguments {
  private final Map<String, ?> given;
  private final Set<String> used = new HashSet<>();

  Arguments(Map<String, ?> given) {
    this.given = given;
  }

  private Object get(String name) {
    used.add(name);
    return given.get(name);
  }

  /** Fails if something was given that nobody asked for. */
  void checkUsed() {
    for (String name : given.keySet()) {
      if (!used.contains(name)) {
        throw new NotUnderstood("there is no parameter " + name);
      }
    }
  }

  String text(String name) {
    return (String) get(name);
  }

  void text(String name, Consumer<String> into) {
    pass(text(name), into);
  }

  long integer(String name) {
    Long value = number(name, get(name));
    if (value == null) {
      throw new NotUnderstood(name + " is needed");
    }
    return value;
  }

  void integer(String name, Consumer<Long> into) {
    pass(number(name, get(name)), into);
  }

  void flag(String name, Consumer<Boolean> into) {
    pass((Boolean) get(name), into);
  }

  @SuppressWarnings("unchecked")
  List<String> texts(String name) {
    return (List<String>) get(name);
  }

  void texts(String name, Consumer<List<String>> into) {
    pass(texts(name), into);
  }

  List<Long> integers(String name) {
    if (!(get(name) instanceof List<?> items)) {
      return null;
    }
    List<Long> result = new ArrayList<>();
    for (Object item : items) {
      result.add(number(name, item));
    }
    return result;
  }

  void integers(String name, Consumer<List<Long>> into) {
    pass(integers(name), into);
  }

  @SuppressWarnings("unchecked")
  Map<String, Object> object(String name) {
    Object text = get(name + "_json");
    return (Map<String, Object>) (text == null ? get(name) : AdapterAccess.parse((String) text));
  }

  void object(String name, Consumer<Map<String, Object>> into) {
    pass(object(name), into);
  }

  @SuppressWarnings("unchecked")
  void textMap(String name, Consumer<Map<String, String>> into) {
    pass((Map<String, String>) get(name), into);
  }

  Payload payload(String name) {
    Object text = get(name + "_text");
    Object bytes = get(name + "_b64");
    Object json = get(name + "_json");
    if (text != null) {
      return Payload.text((String) text);
    }
    if (bytes != null) {
      return Mutant.payload(Base64.getDecoder().decode((String) bytes));
    }
    return json == null ? null : Payload.json(AdapterAccess.parse((String) json));
  }

  byte[] bytes(String name) {
    Object bytes = get(name + "_b64");
    return bytes == null ? null : Base64.getDecoder().decode((String) bytes);
  }

  private static Long number(String name, Object value) {
    Object number = value instanceof String text ? AdapterAccess.parse(text) : value;
    if (number instanceof BigInteger) {
      // No program can say this to a parameter of type long: Java itself refuses it.
      throw AdapterAccess.refused(name, number + " does not fit a long");
    }
    Long whole = (Long) number;
    return value instanceof String && whole != null ? Long.valueOf(Mutant.id(whole)) : whole;
  }

  private static <T> void pass(T value, Consumer<T> into) {
    if (value != null) {
      into.accept(value);
    }
  }
}
