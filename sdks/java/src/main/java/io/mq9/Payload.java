package io.mq9;

import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/** What a message carries: bytes, text (sent as UTF-8) or a JSON value. */
public abstract sealed class Payload {
  private Payload() {}

  /**
   * Bytes as they are.
   *
   * @param bytes the bytes; copied
   * @return the payload
   */
  public static Payload bytes(byte[] bytes) {
    return new Bytes(bytes.clone());
  }

  /**
   * Text, sent as UTF-8.
   *
   * @param text the text
   * @return the payload
   */
  public static Payload text(String text) {
    return new Text(text);
  }

  /**
   * A JSON value, sent as UTF-8 without blanks.
   *
   * @param value null, a Boolean, a CharSequence, a Number with a finite value, an Iterable or an
   *     array of such values, or a Map with such values under text keys
   * @return the payload
   */
  public static Payload json(@Nullable Object value) {
    return new JsonValue(value);
  }

  /** The bytes to send; fails with kind invalid_argument if they can't be made. */
  abstract byte[] encode(String field);

  static byte[] utf8(String field, String text) {
    try {
      var buffer = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
      byte[] result = new byte[buffer.remaining()];
      buffer.get(result);
      return result;
    } catch (CharacterCodingException error) {
      throw Mq9Exception.invalid(field, "has half a surrogate pair, which is no character");
    }
  }

  private static final class Bytes extends Payload {
    private final byte[] bytes;

    Bytes(byte[] bytes) {
      this.bytes = bytes;
    }

    @Override
    byte[] encode(String field) {
      return bytes;
    }
  }

  private static final class Text extends Payload {
    private final String text;

    Text(String text) {
      this.text = text;
    }

    @Override
    byte[] encode(String field) {
      return utf8(field, text);
    }
  }

  private static final class JsonValue extends Payload {
    private final @Nullable Object value;

    JsonValue(@Nullable Object value) {
      this.value = value;
    }

    @Override
    byte[] encode(String field) {
      return Json.bytes(field, value);
    }
  }
}
