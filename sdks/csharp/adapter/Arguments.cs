using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Adapter;

/// <summary>A request that this adapter does not know how to carry out.</summary>
internal sealed class NotUnderstoodException(string message) : Exception(message);

/// <summary>Arguments of the adapter protocol as values of the SDK; what is not there is null.</summary>
internal static class Arguments
{
    private static readonly string[] Forms = ["_text", "_b64", "_json"];

    /// <summary>Refuses arguments that the operation does not have.</summary>
    public static void Refuse(JsonElement args, IReadOnlyCollection<string> known)
    {
        foreach (JsonProperty given in args.EnumerateObject())
        {
            string? form = Array.Find(Forms, form => given.Name.EndsWith(form, StringComparison.Ordinal));
            if (!known.Contains(given.Name) && (form is null || !known.Contains(given.Name[..^form.Length])))
            {
                throw new NotUnderstoodException($"there is no parameter '{given.Name}'");
            }
        }
    }

    public static string? Text(JsonElement args, string name) => Find(args, name)?.GetString();

    public static bool? Boolean(JsonElement args, string name) => Find(args, name)?.GetBoolean();

    public static long? Integer(JsonElement args, string name) => Find(args, name) is { } value ? Number(value) : null;

    public static TimeSpan? Duration(JsonElement args, string name)
    {
        return Integer(args, name) is { } milliseconds ? TimeSpan.FromMilliseconds(milliseconds) : null;
    }

    public static long[]? Ids(JsonElement args, string name)
    {
        return Find(args, name) is { } value ? [.. value.EnumerateArray().Select(Number)] : null;
    }

    public static string[]? Texts(JsonElement args, string name)
    {
        return Find(args, name) is { } value ? [.. value.EnumerateArray().Select(item => item.GetString()!)] : null;
    }

    public static Dictionary<string, string>? Headers(JsonElement args, string name)
    {
        return Find(args, name)?.EnumerateObject().ToDictionary(member => member.Name, member => member.Value.GetString()!);
    }

    public static JsonObject? Json(JsonElement args, string name)
    {
        if (Find(args, name + "_json") is { } text)
        {
            return JsonNode.Parse(text.GetString()!)!.AsObject();
        }

        return Find(args, name) is { } value ? JsonObject.Create(value) : null;
    }

    public static Payload Payload(JsonElement args, string name)
    {
        if (Find(args, name + "_text") is { } text)
        {
            return text.GetString()!;
        }

        if (Find(args, name + "_json") is { } json)
        {
            return Mq9.Payload.FromJson(JsonNode.Parse(json.GetString()!));
        }

        return Find(args, name + "_b64") is { } bytes ? bytes.GetBytesFromBase64() : throw new NotUnderstoodException($"{name} is missing");
    }

    private static JsonElement? Find(JsonElement args, string name) => args.TryGetProperty(name, out JsonElement value) ? value : null;

    private static long Number(JsonElement value)
    {
        if (value.ValueKind == JsonValueKind.String)
        {
            return long.Parse(value.GetString()!, System.Globalization.CultureInfo.InvariantCulture);
        }

        // No program can give a number beyond its type: the nearest one stands for it.
        return value.TryGetInt64(out long number) ? number : long.MaxValue;
    }
}
