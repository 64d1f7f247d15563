using System.Globalization;

namespace Mq9;

/// <summary>Reads single headers of a message. Names match in any case; the first value counts.</summary>
internal static class HeaderReader
{
    public static string? Text(IReadOnlyDictionary<string, IReadOnlyList<string>>? headers, string name)
    {
        if (headers is null)
        {
            return null;
        }

        foreach ((string spelled, IReadOnlyList<string> values) in headers)
        {
            if (values.Count > 0 && string.Equals(spelled, name, StringComparison.OrdinalIgnoreCase))
            {
                return values[0];
            }
        }

        return null;
    }

    public static long? Integer(IReadOnlyDictionary<string, IReadOnlyList<string>>? headers, string name)
    {
        return long.TryParse(Text(headers, name), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : null;
    }

    public static IReadOnlyList<string>? CommaSeparated(IReadOnlyDictionary<string, IReadOnlyList<string>>? headers, string name)
    {
        return Text(headers, name)?.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
    }
}
