using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.Extensions.Logging;

namespace Mq9;

/// <summary>A value is not of the type that the protocol says.</summary>
internal sealed class OddValueException(string message) : Exception(message)
{
    public string Joined => Message.StartsWith('.') || Message.StartsWith('[') ? Message : ": " + Message;
}

/// <summary>Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil all.</summary>
internal static class Decode
{
    /// <summary>Bodies may be nested 64 deep, and stand inside of a reply.</summary>
    public static readonly JsonDocumentOptions Options = new() { MaxDepth = 1000 };

    /// <summary>Where odd items are logged; that of the call which is being decoded.</summary>
    private static readonly AsyncLocal<ILogger?> Logger = new();

    /// <summary>Parses a reply and decodes what it holds.</summary>
    /// <exception cref="Mq9ServerException">The broker answered with an error.</exception>
    /// <exception cref="Mq9ProtocolException">The reply is not as the protocol says.</exception>
    public static T Reply<T>(string operation, ReadOnlyMemory<byte> data, Func<JsonElement, T> decode, ILogger logger)
    {
        using JsonDocument document = Parse(operation, data);
        JsonElement reply = document.RootElement;
        if (reply.ValueKind != JsonValueKind.Object || !reply.TryGetProperty("error", out JsonElement error) || error.ValueKind != JsonValueKind.String)
        {
            throw new Mq9ProtocolException($"{operation}: the reply is no JSON object with a text `error`");
        }

        string text = Text(error);
        if (text.Length > 0)
        {
            string? code = reply.TryGetProperty("code", out JsonElement given) && given.ValueKind == JsonValueKind.String ? Text(given) : null;
            code = string.IsNullOrEmpty(code) ? Classification.CodeOf(text) : code;
            throw new Mq9ServerException(text, code is null ? default(ErrorCode?) : new ErrorCode(code), Classification.FieldOf(text, code));
        }

        Logger.Value = logger;
        try
        {
            return decode(reply);
        }
        catch (OddValueException odd)
        {
            throw new Mq9ProtocolException($"{operation}: reply{odd.Joined}");
        }
    }

    public static JsonElement Members(JsonElement value) => value.ValueKind == JsonValueKind.Object ? value : throw new OddValueException("must be an object");

    public static long Integer(JsonElement value)
    {
        return value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out long number) ? number : throw new OddValueException("must be a whole number");
    }

    public static double Number(JsonElement value)
    {
        return value.ValueKind == JsonValueKind.Number ? value.GetDouble() : throw new OddValueException("must be a number");
    }

    public static bool Boolean(JsonElement value)
    {
        return value.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw new OddValueException("must be true or false"),
        };
    }

    public static string String(JsonElement value) => value.ValueKind == JsonValueKind.String ? Text(value) : throw new OddValueException("must be text");

    public static JsonElement JsonObject(JsonElement value) => Members(value).Clone();

    public static IReadOnlyDictionary<string, IReadOnlyList<string>> HeaderMap(JsonElement value)
    {
        Dictionary<string, IReadOnlyList<string>> result = [];
        foreach (JsonProperty member in Members(value).EnumerateObject())
        {
            result[member.Name] = ListOf(String)(member.Value);
        }

        return result;
    }

    public static Func<JsonElement, T> OpenText<T>(Func<string, T> make) => value => make(String(value));

    /// <summary>A list; with <paramref name="drop"/> an odd item is left out and logged instead of failing the whole.</summary>
    public static Func<JsonElement, IReadOnlyList<T>> ListOf<T>(Func<JsonElement, T> item, bool drop = false)
    {
        return value =>
        {
            if (value.ValueKind != JsonValueKind.Array)
            {
                throw new OddValueException("must be a list");
            }

            List<T> result = new(value.GetArrayLength());
            int index = 0;
            foreach (JsonElement entry in value.EnumerateArray())
            {
                try
                {
                    result.Add(item(entry));
                }
                catch (OddValueException odd)
                {
                    string where = string.Create(CultureInfo.InvariantCulture, $"[{index}]{odd.Joined}");
                    if (!drop)
                    {
                        throw new OddValueException(where);
                    }

                    Logger.Value?.LogWarning("mq9: left an odd item out of a reply: {Where}", where);
                }

                index++;
            }

            return result;
        };
    }

    public static T Required<T>(JsonElement fields, string name, Func<JsonElement, T> decode)
    {
        if (!fields.TryGetProperty(name, out JsonElement value) || value.ValueKind == JsonValueKind.Null)
        {
            throw new OddValueException($".{name}: is missing");
        }

        try
        {
            return decode(value);
        }
        catch (OddValueException odd)
        {
            throw new OddValueException($".{name}{odd.Joined}");
        }
    }

    public static T? Optional<T>(JsonElement fields, string name, Func<JsonElement, T> decode)
        where T : class
    {
        return IsAbsent(fields, name) ? null : Required(fields, name, decode);
    }

    public static T? OptionalValue<T>(JsonElement fields, string name, Func<JsonElement, T> decode)
        where T : struct
    {
        return IsAbsent(fields, name) ? null : Required(fields, name, decode);
    }

    /// <summary>A member that counts as absent when its value is odd.</summary>
    public static T? Lenient<T>(JsonElement fields, string name, Func<JsonElement, T> decode)
        where T : class
    {
        try
        {
            return Optional(fields, name, decode);
        }
        catch (OddValueException)
        {
            return null;
        }
    }

    /// <summary>A member that counts as absent when its value is odd.</summary>
    public static T? LenientValue<T>(JsonElement fields, string name, Func<JsonElement, T> decode)
        where T : struct
    {
        try
        {
            return OptionalValue(fields, name, decode);
        }
        catch (OddValueException)
        {
            return null;
        }
    }

    /// <summary>A message's payload: decoded base64, or the UTF-8 of a text that is none; empty if it is missing.</summary>
    public static ReadOnlyMemory<byte> Payload(JsonElement fields, string name, string encodingName)
    {
        if (!fields.TryGetProperty(name, out JsonElement value) || value.ValueKind != JsonValueKind.String)
        {
            return ReadOnlyMemory<byte>.Empty;
        }

        string text = Text(value);
        if (fields.TryGetProperty(encodingName, out JsonElement encoding) && encoding.ValueKind == JsonValueKind.String && encoding.ValueEquals("base64"))
        {
            byte[] bytes = new byte[(text.Length / 4 * 3) + 3];
            // The decoder of .NET skips blanks, which are no base64.
            if (text.Length % 4 == 0 && !text.Any(char.IsWhiteSpace) && Convert.TryFromBase64String(text, bytes, out int written))
            {
                return bytes.AsMemory(0, written);
            }

            Logger.Value?.LogWarning("mq9: a message says base64, but its payload is none: taken as text");
        }

        return Encoding.UTF8.GetBytes(text);
    }

    private static bool IsAbsent(JsonElement fields, string name) => !fields.TryGetProperty(name, out JsonElement value) || value.ValueKind == JsonValueKind.Null;

    private static JsonDocument Parse(string operation, ReadOnlyMemory<byte> data)
    {
        if (!Utf8.IsValid(data.Span))
        {
            throw new Mq9ProtocolException($"{operation}: the reply is not UTF-8");
        }

        try
        {
            return JsonDocument.Parse(data, Options);
        }
        catch (JsonException error)
        {
            throw new Mq9ProtocolException($"{operation}: the reply is no JSON: {error.Message}", inner: error);
        }
    }

    /// <summary>A text; half a surrogate pair, which JSON can write but .NET refuses to read, becomes U+FFFD.</summary>
    private static string Text(JsonElement value)
    {
        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException)
        {
            return Unescaped(value.GetRawText().AsSpan()[1..^1]);
        }
    }

    private static string Unescaped(ReadOnlySpan<char> raw)
    {
        StringBuilder result = new(raw.Length);
        for (int index = 0; index < raw.Length; index++)
        {
            if (raw[index] != '\\')
            {
                result.Append(raw[index]);
                continue;
            }

            char escape = raw[++index];
            if (escape == 'u')
            {
                result.Append((char)ushort.Parse(raw.Slice(index + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture));
                index += 4;
            }
            else
            {
                result.Append(escape switch { 'n' => '\n', 'r' => '\r', 't' => '\t', 'b' => '\b', 'f' => '\f', _ => escape });
            }
        }

        return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(result.ToString()));
    }
}
