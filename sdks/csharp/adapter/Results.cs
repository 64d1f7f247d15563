using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Adapter;

/// <summary>Values of the SDK in the form of the adapter protocol.</summary>
internal static class Results
{
    public static JsonNode Text(string value) => JsonValue.Create(value)!;

    public static JsonNode Id(long value)
    {
        if (Mutants.Is("ids-through-doubles"))
        {
            value = (long)(double)value;
        }

        return Text(value.ToString(CultureInfo.InvariantCulture));
    }

    public static JsonNode Json(JsonElement value) => Text(value.GetRawText());

    public static JsonNode Base64(ReadOnlyMemory<byte> value)
    {
        ReadOnlySpan<byte> bytes = Mutants.Is("payload-as-text") ? Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(value.Span)) : value.Span;
        return Text(Convert.ToBase64String(bytes));
    }

    public static JsonArray List<T>(IEnumerable<T> values, Func<T, JsonNode?> write) => new([.. values.Select(write)]);

    public static JsonObject Headers(IReadOnlyDictionary<string, IReadOnlyList<string>> headers)
    {
        return new JsonObject(headers.Select(header => KeyValuePair.Create<string, JsonNode?>(header.Key, List(header.Value, Text))));
    }

    /// <summary>What the SDK's own helpers make of a payload.</summary>
    public static void Decoded(Mq9Message message, IReadOnlyCollection<string> decode, JsonObject result)
    {
        if (decode.Contains("text"))
        {
            result["decoded_text"] = message.Text();
        }

        if (decode.Contains("json"))
        {
            result["decoded_json"] = message.Json().GetRawText();
        }
    }

    /// <summary>An error as the SDK reports it; one that is none of the SDK's is a handler's.</summary>
    public static JsonObject Error(Exception error)
    {
        JsonObject result = error switch
        {
            Mq9Exception failure => new JsonObject { ["kind"] = failure.Kind.Value, ["code"] = failure.Code?.Value, ["field"] = failure.Field },
            OperationCanceledException => new JsonObject { ["kind"] = ErrorKind.Cancelled.Value },
            _ => new JsonObject { ["kind"] = "handler" },
        };
        result["message"] = error.Message;
        Mutants.Spoil(result);
        foreach (string name in result.Where(member => member.Value is null).Select(member => member.Key).ToArray())
        {
            result.Remove(name);
        }

        return result;
    }
}
