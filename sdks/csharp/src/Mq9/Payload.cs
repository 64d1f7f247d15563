using System.Diagnostics.CodeAnalysis;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace Mq9;

/// <summary>What a message carries: bytes, text (sent as UTF-8) or a JSON value.</summary>
public readonly struct Payload
{
    private readonly ReadOnlyMemory<byte> _bytes;
    private readonly string? _text;

    private Payload(ReadOnlyMemory<byte> bytes, string? text)
    {
        _bytes = bytes;
        _text = text;
    }

    /// <summary>Bytes, as they are.</summary>
    /// <param name="bytes">The bytes; they must not change until the call has ended.</param>
    public static Payload FromBytes(ReadOnlyMemory<byte> bytes) => new(bytes, null);

    /// <summary>Text, sent as UTF-8.</summary>
    /// <param name="text">The text.</param>
    public static Payload FromText(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return new Payload(default, text);
    }

    /// <summary>A JSON value.</summary>
    /// <param name="value">The value; null is JSON's null.</param>
    /// <exception cref="Mq9InvalidArgumentException">It is no JSON value, such as a number that is not finite.</exception>
    public static Payload FromJson(JsonNode? value) => new(Encode.JsonBytes("payload", value), null);

    /// <summary>A JSON value, as it stands: digits, order and null.</summary>
    /// <param name="value">The value.</param>
    public static Payload FromJson(JsonElement value) => new(Encode.JsonBytes("payload", value), null);

    /// <summary>A value of your own as JSON, by a source-generated description of its type.</summary>
    /// <typeparam name="T">Its type.</typeparam>
    /// <param name="value">The value.</param>
    /// <param name="type">The description, from a <c>JsonSerializerContext</c>.</param>
    public static Payload FromJson<T>(T value, JsonTypeInfo<T> type) => new(JsonSerializer.SerializeToUtf8Bytes(value, type), null);

    /// <summary>Bytes, as they are.</summary>
    /// <param name="bytes">The bytes.</param>
    [SuppressMessage("Usage", "CA2225", Justification = "FromBytes is the alternative.")]
    public static implicit operator Payload(byte[] bytes) => FromBytes(bytes);

    /// <summary>Bytes, as they are.</summary>
    /// <param name="bytes">The bytes.</param>
    [SuppressMessage("Usage", "CA2225", Justification = "FromBytes is the alternative.")]
    public static implicit operator Payload(ReadOnlyMemory<byte> bytes) => FromBytes(bytes);

    /// <summary>Text, sent as UTF-8.</summary>
    /// <param name="text">The text.</param>
    [SuppressMessage("Usage", "CA2225", Justification = "FromText is the alternative.")]
    public static implicit operator Payload(string text) => FromText(text);

    internal ReadOnlyMemory<byte> ToBytes(string field)
    {
        if (_text is null)
        {
            return _bytes;
        }

        try
        {
            return Encode.StrictUtf8.GetBytes(_text);
        }
        catch (EncoderFallbackException error)
        {
            throw Encode.Invalid(field, "has half a surrogate pair, which is no character", inner: error);
        }
    }
}
