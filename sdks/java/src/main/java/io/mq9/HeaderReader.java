package io.mq9;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Reads single headers of a message. Names match in any case; the first value counts. */
abstract class HeaderReader {
  private static final Pattern DIGITS = Pattern.compile("[0-9]{1,19}");

  HeaderReader() {}

  abstract @Nullable Map<String, List<String>> headers();

  final @Nullable String textHeader(String name) {
    Map<String, List<String>> all = headers();
    if (all != null) {
      for (Map.Entry<String, List<String>> header : all.entrySet()) {
        if (!header.getValue().isEmpty() && header.getKey().toLowerCase(Locale.ROOT).equals(name)) {
          return header.getValue().get(0);
        }
      }
    }
    return null;
  }

  final @Nullable Long integerHeader(String name) {
    String text = textHeader(name);
    if (text == null || !DIGITS.matcher(text).matches()) {
      return null;
    }
    try {
      return Long.valueOf(text);
    } catch (NumberFormatException error) {
      return null;
    }
  }

  final @Nullable List<String> listHeader(String name) {
    String text = textHeader(name);
    if (text == null) {
      return null;
    }
    List<String> items = new ArrayList<>();
    for (String item : text.split(",", -1)) {
      if (!item.isBlank()) {
        items.add(item.strip());
      }
    }
    return items;
  }
}
