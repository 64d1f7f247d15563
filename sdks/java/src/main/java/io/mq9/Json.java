package io.mq9;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamWriteConstraints;
import java.io.IOException;
import java.io.StringWriter;
import java.lang.reflect.Array;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * JSON without losing a digit: whole numbers are Long, or BigInteger where that is too small; all
 * others BigDecimal. Objects keep their order.
 */
final class Json {
  private static final int DEPTH = 500;
  private static final JsonFactory FACTORY =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(DEPTH)
                  .maxStringLength(Integer.MAX_VALUE)
                  .maxNumberLength(100_000)
                  .build())
          .streamWriteConstraints(StreamWriteConstraints.builder().maxNestingDepth(DEPTH).build())
          .build();

  private Json() {}

  /** Reads one value, which has to be all that there is. */
  static @Nullable Object parse(byte[] data) throws IOException {
    String text;
    try {
      text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(data)).toString();
    } catch (CharacterCodingException error) {
      throw new IOException("not UTF-8", error);
    }
    return parse(text);
  }

  static @Nullable Object parse(String text) throws IOException {
    try (JsonParser parser = FACTORY.createParser(text)) {
      JsonToken first = parser.nextToken();
      if (first == null) {
        throw new IOException("it is empty");
      }
      Object value = value(parser, first);
      if (parser.nextToken() != null) {
        throw new IOException("something follows the value");
      }
      return value;
    }
  }

  private static @Nullable Object value(JsonParser parser, JsonToken token) throws IOException {
    switch (token) {
      case START_OBJECT:
        Map<String, @Nullable Object> members = new LinkedHashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
          String name = parser.currentName();
          members.put(name, value(parser, parser.nextToken()));
        }
        return members;
      case START_ARRAY:
        List<@Nullable Object> items = new ArrayList<>();
        for (JsonToken next = parser.nextToken();
            next != JsonToken.END_ARRAY;
            next = parser.nextToken()) {
          items.add(value(parser, next));
        }
        return items;
      case VALUE_NUMBER_INT:
        BigInteger whole = new BigInteger(parser.getText());
        return whole.bitLength() < Long.SIZE ? (Object) whole.longValue() : whole;
      case VALUE_NUMBER_FLOAT:
        return new BigDecimal(parser.getText());
      case VALUE_STRING:
        return parser.getText();
      case VALUE_TRUE:
        return true;
      case VALUE_FALSE:
        return false;
      default:
        return null;
    }
  }

  /** A value as text; fails with kind invalid_argument if it is no JSON value. */
  static String text(String field, @Nullable Object value) {
    var out = new StringWriter();
    try (JsonGenerator generator = FACTORY.createGenerator(out)) {
      write(generator, value);
    } catch (IOException | IllegalArgumentException error) {
      throw Mq9Exception.invalid(field, "is no JSON value: " + error.getMessage());
    }
    return out.toString();
  }

  /** A value as UTF-8; fails with kind invalid_argument if it is no JSON value. */
  static byte[] bytes(String field, @Nullable Object value) {
    return Payload.utf8(field, text(field, value));
  }

  private static void write(JsonGenerator out, @Nullable Object value) throws IOException {
    if (value == null) {
      out.writeNull();
    } else if (value instanceof CharSequence || value instanceof Character) {
      out.writeString(value.toString());
    } else if (value instanceof Boolean flag) {
      out.writeBoolean(flag);
    } else if (value instanceof Number number) {
      writeNumber(out, number);
    } else if (value instanceof Map<?, ?> members) {
      out.writeStartObject();
      for (Map.Entry<?, ?> member : members.entrySet()) {
        if (!(member.getKey() instanceof CharSequence name)) {
          throw new IllegalArgumentException("a name must be text, not " + member.getKey());
        }
        out.writeFieldName(name.toString());
        write(out, member.getValue());
      }
      out.writeEndObject();
    } else if (value instanceof Iterable<?> items) {
      out.writeStartArray();
      for (Object item : items) {
        write(out, item);
      }
      out.writeEndArray();
    } else if (value.getClass().isArray()) {
      out.writeStartArray();
      for (int index = 0; index < Array.getLength(value); index++) {
        write(out, Array.get(value, index));
      }
      out.writeEndArray();
    } else {
      throw new IllegalArgumentException("an object of " + value.getClass().getName());
    }
  }

  private static void writeNumber(JsonGenerator out, Number number) throws IOException {
    if (number instanceof Double || number instanceof Float) {
      if (!Double.isFinite(number.doubleValue())) {
        throw new IllegalArgumentException(number + " is no JSON number");
      }
      out.writeNumber(number.toString());
    } else if (number instanceof BigInteger
        || number instanceof BigDecimal
        || number instanceof Long
        || number instanceof Integer
        || number instanceof Short
        || number instanceof Byte) {
      out.writeNumber(number.toString());
    } else {
      throw new IllegalArgumentException("a number of " + number.getClass().getName());
    }
  }
}
