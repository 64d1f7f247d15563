package io.mq9.adapter;

import io.mq9.Client;
import io.mq9.Mq9Exception;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionException;

/** Calls operations by name, through the dispatch that is generated for the adapter. */
public final class DynamicCalls {
  private DynamicCalls() {}

  /** Calls an operation and waits; the result is plain, with payloads in base64. */
  public static Object call(Client client, String method, Map<String, Object> given) {
    Dispatch.Entry entry = Dispatch.OPERATIONS.get(method);
    var args = new Arguments(given);
    var call = entry.caller().call(client, args);
    args.checkUsed();
    try {
      return plain(entry.encoder().encode(call.join(), Set.of()));
    } catch (CompletionException error) {
      throw (Mq9Exception) error.getCause();
    }
  }

  private static Object plain(Object value) {
    if (value instanceof Out.Id id) {
      return id.value();
    }
    if (value instanceof Out.Json json) {
      return json.value();
    }
    if (value instanceof byte[] bytes) {
      return Base64.getEncoder().encodeToString(bytes);
    }
    if (value instanceof List<?> items) {
      List<Object> result = new ArrayList<>();
      items.forEach(item -> result.add(plain(item)));
      return result;
    }
    if (value instanceof Map<?, ?> members) {
      Map<String, Object> result = new LinkedHashMap<>();
      members.forEach((name, item) -> result.put((String) name, plain(item)));
      return result;
    }
    return value;
  }
}
