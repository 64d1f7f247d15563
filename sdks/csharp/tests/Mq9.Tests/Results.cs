using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Adapter;

/// <summary>What the generated dispatch of the adapter writes with, here in the form of the wire vectors.</summary>
internal static class Results
{
    public static JsonNode Text(string value) => JsonValue.Create(value)!;

    public static JsonNode Id(long value) => JsonValue.Create(value);

    public static JsonNode? Json(JsonElement value) => JsonNode.Parse(value.GetRawText(), documentOptions: new JsonDocumentOptions { MaxDepth = 1000 });

    public static JsonNode Base64(ReadOnlyMemory<byte> value) => Text(Convert.ToBase64String(value.Span));

    public static JsonArray List<T>(IEnumerable<T> values, Func<T, JsonNode?> write) => new([.. values.Select(write)]);

    public static JsonObject Headers(IReadOnlyDictionary<string, IReadOnlyList<string>> headers)
    {
        return new JsonObject(headers.Select(header => KeyValuePair.Create<string, JsonNode?>(header.Key, List(header.Value, Text))));
    }

    public static void Decoded(Mq9Message message, IReadOnlyCollection<string> decode, JsonObject result)
    {
    }
}
