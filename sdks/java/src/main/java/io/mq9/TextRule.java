package io.mq9;

import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** What a text has to satisfy. */
final class TextRule {
  private static final Pattern PRINTABLE =
      Pattern.compile("[\\x21-\\x7e](?:[\\x20-\\x7e]*[\\x21-\\x7e])?");
  private static final Pattern CONTROL = Pattern.compile("[\\x00-\\x1f\\x7f-\\x9f]");

  /** What travels in a header. */
  static final TextRule HEADER =
      new TextRule(
          ErrorCode.INVALID_ARGUMENT,
          0,
          Integer.MAX_VALUE,
          1,
          Integer.MAX_VALUE,
          "",
          "",
          List.of(),
          "printable_ascii");

  private final String code;
  private final int minLength;
  private final int maxLength;
  private final int minBytes;
  private final int maxBytes;
  private final @Nullable Pattern pattern;
  private final String chars;
  private final List<String> forbid;
  private final String text;

  /** Lengths count characters, sizes bytes of UTF-8; {@code chars} says the pattern for people. */
  TextRule(
      String code,
      int minLength,
      int maxLength,
      int minBytes,
      int maxBytes,
      String pattern,
      String chars,
      List<String> forbid,
      String text) {
    this.code = code;
    this.minLength = minLength;
    this.maxLength = maxLength;
    this.minBytes = minBytes;
    this.maxBytes = maxBytes;
    this.pattern = pattern.isEmpty() ? null : Pattern.compile(pattern);
    this.chars = chars;
    this.forbid = forbid;
    this.text = text;
  }

  /** Gives the text back if it satisfies everything. */
  String check(String field, @Nullable String value) {
    if (value == null) {
      throw Mq9Exception.invalid(field, "must not be null", code);
    }
    int size;
    try {
      size = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(value)).remaining();
    } catch (CharacterCodingException error) {
      throw Mq9Exception.invalid(field, "has half a surrogate pair, which is no character", code);
    }
    String why = whyNot(value, size);
    if (!why.isEmpty()) {
      throw Mq9Exception.invalid(
          field, value.isEmpty() ? why : why + ": " + Values.shown(value), code);
    }
    return value;
  }

  private String whyNot(String value, int size) {
    int length = value.codePointCount(0, value.length());
    if (length == 0 && (minLength > 0 || minBytes > 0)) {
      return "must not be empty";
    }
    if (length > maxLength) {
      return "has " + length + " characters, at most " + maxLength + " are allowed";
    }
    if (size > maxBytes) {
      return "has " + size + " bytes in UTF-8, at most " + maxBytes + " are allowed";
    }
    if (length < minLength || size < minBytes) {
      return "is too short";
    }
    if (pattern != null && !pattern.matcher(value).matches()) {
      return "must be " + chars;
    }
    for (String part : forbid) {
      if (value.contains(part)) {
        return "must not contain " + Values.shown(part);
      }
    }
    if (text.equals("no_control") && CONTROL.matcher(value).find()) {
      return "must not contain control characters";
    }
    if (text.equals("printable_ascii") && !PRINTABLE.matcher(value).matches()) {
      return "must be printable ASCII without blanks at its ends";
    }
    return "";
  }
}
