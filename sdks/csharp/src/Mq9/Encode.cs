using System.Buffers;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9;

/// <summary>Arguments of a call on their way out: checked, then in the form that is sent.</summary>
internal static class Encode
{
    /// <summary>UTF-8 that refuses half a surrogate pair instead of replacing it.</summary>
    public static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>The longest wait that the timers of .NET take.</summary>
    private static readonly TimeSpan LongestTimeout = TimeSpan.FromMilliseconds(int.MaxValue);

    private static readonly TextRule HeaderText = new() { MinBytes = 1, Text = CharacterClass.PrintableAscii };

    private static readonly SearchValues<char> HeaderNameCharacters =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");

    // Quotes and control characters are escaped all the same; what is left out matters in HTML only.
    private static readonly JsonWriterOptions WriterOptions = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, MaxDepth = 1000 };

    public static Mq9InvalidArgumentException Invalid(string field, string why, string code = "invalid_argument", Exception? inner = null)
    {
        return new Mq9InvalidArgumentException($"{field}: {why}", new ErrorCode(code), field, inner);
    }

    public static List<T> List<T>(string field, IReadOnlyCollection<T> values, IRule<T> rule, int low, int high)
    {
        if (values is null)
        {
            throw Invalid(field, "must not be null");
        }

        List<T> result = new(values.Count);
        foreach (T value in values)
        {
            result.Add(rule.Check(field, value));
        }

        if (result.Count < low)
        {
            throw Invalid(field, low == 1 ? "must not be empty" : string.Create(CultureInfo.InvariantCulture, $"must have at least {low} items, not {result.Count}"));
        }

        if (result.Count > high)
        {
            throw Invalid(field, string.Create(CultureInfo.InvariantCulture, $"must have at most {high} items, not {result.Count}"));
        }

        return result;
    }

    public static JsonArray Items(string field, IReadOnlyCollection<long> values, IRule<long> rule, int low, int high)
    {
        return new JsonArray([.. List(field, values, rule, low, high).Select(value => (JsonNode?)JsonValue.Create(value))]);
    }

    public static JsonArray Items(string field, IReadOnlyCollection<string> values, IRule<string> rule, int low, int high)
    {
        return new JsonArray([.. List(field, values, rule, low, high).Select(value => (JsonNode?)JsonValue.Create(value))]);
    }

    public static string Header(string field, string value) => HeaderText.Check(field, value);

    public static string Joined(string field, IEnumerable<string> values) => string.Join(',', values.Select(value => Header(field, value)));

    public static Dictionary<string, string> UserHeaders(string field, IReadOnlyDictionary<string, string> values, HashSet<string> reserved)
    {
        Dictionary<string, string> result = [];
        foreach ((string name, string value) in values)
        {
            if (string.IsNullOrEmpty(name) || name.AsSpan().ContainsAnyExcept(HeaderNameCharacters))
            {
                throw Invalid(field, $"a name must be letters, digits and -_. only: '{name}'");
            }

            if (reserved.Contains(name))
            {
                throw Invalid(field, $"{name} has an option of its own");
            }

            result[name] = HeaderText.Check(field, value);
        }

        return result;
    }

    /// <summary>Puts the members of an object of the user's own into a body; what is there already wins.</summary>
    public static void Spread(string field, JsonObject value, JsonObject body)
    {
        try
        {
            foreach ((string name, JsonNode? member) in value)
            {
                if (!body.ContainsKey(name))
                {
                    body[name] = member?.DeepClone();
                }
            }
        }
        catch (Exception error) when (error is ArgumentException or JsonException or InvalidOperationException)
        {
            throw Invalid(field, $"is no JSON object: {error.Message}", inner: error);
        }
    }

    public static byte[] JsonBytes(string field, JsonNode? value)
    {
        return JsonBytes(field, writer =>
        {
            if (value is null)
            {
                writer.WriteNullValue();
            }
            else
            {
                RefuseHalfCharacters(field, value);
                value.WriteTo(writer);
            }
        });
    }

    public static byte[] JsonBytes(string field, JsonElement value) => JsonBytes(field, value.WriteTo);

    public static TimeSpan Timeout(string field, TimeSpan value)
    {
        return value > TimeSpan.Zero && value <= LongestTimeout
            ? value
            : throw Invalid(field, string.Create(CultureInfo.InvariantCulture, $"must be above 0 and at most {int.MaxValue} ms, not {value}"));
    }

    public static string GeneratedDedupId(int digits)
    {
        return RandomNumberGenerator.GetHexString(digits, lowercase: true);
    }

    private static byte[] JsonBytes(string field, Action<Utf8JsonWriter> write)
    {
        try
        {
            ArrayBufferWriter<byte> buffer = new();
            using (Utf8JsonWriter writer = new(buffer, WriterOptions))
            {
                write(writer);
            }

            return buffer.WrittenSpan.ToArray();
        }
        catch (Exception error) when (error is ArgumentException or InvalidOperationException or JsonException or NotSupportedException)
        {
            throw Invalid(field, $"is no JSON value: {error.Message}", inner: error);
        }
    }

    /// <summary>The writer would put U+FFFD in place of half a surrogate pair: something else than was given.</summary>
    private static void RefuseHalfCharacters(string field, JsonNode? node)
    {
        switch (node)
        {
            case JsonObject members:
                foreach ((string name, JsonNode? member) in members)
                {
                    RefuseHalfCharacters(field, name);
                    RefuseHalfCharacters(field, member);
                }

                break;
            case JsonArray items:
                foreach (JsonNode? item in items)
                {
                    RefuseHalfCharacters(field, item);
                }

                break;
            case JsonValue value when value.TryGetValue(out string? text) && text is not null:
                RefuseHalfCharacters(field, text);
                break;
            default:
                break;
        }
    }

    private static void RefuseHalfCharacters(string field, string text)
    {
        try
        {
            _ = StrictUtf8.GetByteCount(text);
        }
        catch (EncoderFallbackException error)
        {
            throw Invalid(field, "has half a surrogate pair, which is no character", inner: error);
        }
    }
}
