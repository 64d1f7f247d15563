package io.mq9;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * Every wire vector of the specification: the exact request of a call, and what a reply becomes.
 */
class VectorTest {
  @TestFactory
  Stream<DynamicTest> vectors() throws IOException {
    byte[] data;
    try (var in = Objects.requireNonNull(VectorTest.class.getResourceAsStream("vectors.json"))) {
      data = in.readAllBytes();
    }
    @SuppressWarnings("unchecked")
    var file =
        (Map<String, Object>)
            Objects.requireNonNull(Json.parse(new String(data, StandardCharsets.UTF_8)));
    @SuppressWarnings("unchecked")
    var vectors = (List<Map<String, Object>>) Objects.requireNonNull(file.get("vectors"));
    return vectors.stream()
        .map(
            vector ->
                DynamicTest.dynamicTest(
                    vector.get("operation") + "/" + vector.get("id"),
                    () -> new VectorCheck(vector).run()));
  }
}
