using System.Globalization;
using System.Text;

namespace Mq9;

/// <summary>Which characters a text may hold.</summary>
internal enum CharacterClass
{
    Any,
    NoControl,
    PrintableAscii,
}

/// <summary>What an item of a list has to satisfy.</summary>
internal interface IRule<T>
{
    T Check(string field, T value);
}

/// <summary>The bounds of a whole number.</summary>
internal sealed class IntegerRule(long low, long high) : IRule<long>
{
    public long Check(string field, long value)
    {
        return value >= low && value <= high
            ? value
            : throw Encode.Invalid(field, string.Create(CultureInfo.InvariantCulture, $"must be {low} to {high}, not {value}"));
    }
}

/// <summary>What a text has to satisfy.</summary>
internal sealed class TextRule : IRule<string>
{
    /// <summary>Any characters: an open enum, whose values the broker knows.</summary>
    public static readonly TextRule Any = new();

    private const int Shown = 60;

    public string Code { get; init; } = "invalid_argument";

    public int MinLength { get; init; }

    public int MaxLength { get; init; } = int.MaxValue;

    public int MinBytes { get; init; }

    public int MaxBytes { get; init; } = int.MaxValue;

    /// <summary>The characters that it may hold, with ranges such as a-z; empty for any.</summary>
    public string Chars { get; init; } = "";

    public string First { get; init; } = "";

    public string Last { get; init; } = "";

    public string[] Forbid { get; init; } = [];

    public CharacterClass Text { get; init; }

    public string Check(string field, string value)
    {
        if (value is null)
        {
            throw Encode.Invalid(field, "must not be null", Code);
        }

        string? why = WhyNot(value);
        if (why is null)
        {
            return value;
        }

        string shown = value.Length <= Shown ? value : value[..(Shown - 3)] + "...";
        throw Encode.Invalid(field, value.Length > 0 ? $"{why}: '{shown}'" : why, Code);
    }

    private string? WhyNot(string value)
    {
        int size;
        try
        {
            size = Encode.StrictUtf8.GetByteCount(value);
        }
        catch (EncoderFallbackException)
        {
            return "has half a surrogate pair, which is no character";
        }

        int length = MinLength > 0 || MaxLength < int.MaxValue ? value.EnumerateRunes().Count() : 0;
        if (value.Length == 0 && (MinLength > 0 || MinBytes > 0))
        {
            return "must not be empty";
        }

        if (length > MaxLength)
        {
            return $"has {length} characters, at most {MaxLength} are allowed";
        }

        if (size > MaxBytes)
        {
            return $"has {size} bytes in UTF-8, at most {MaxBytes} are allowed";
        }

        if (length < MinLength || size < MinBytes)
        {
            return "is too short";
        }

        return WhyNotOf(value);
    }

    private string? WhyNotOf(string value)
    {
        if (Chars.Length > 0 && !value.All(character => Holds(Chars, character)))
        {
            return $"must be of {Chars} alone";
        }

        if (value.Length > 0 && First.Length > 0 && !Holds(First, value[0]))
        {
            return $"must begin with one of {First}";
        }

        if (value.Length > 0 && Last.Length > 0 && !Holds(Last, value[^1]))
        {
            return $"must end with one of {Last}";
        }

        foreach (string part in Forbid)
        {
            if (value.Contains(part, StringComparison.Ordinal))
            {
                return $"must not contain '{part}'";
            }
        }

        return Text switch
        {
            CharacterClass.NoControl when value.Any(char.IsControl) => "must not contain control characters",
            CharacterClass.PrintableAscii when !IsPrintable(value) => "must be printable ASCII without blanks at its ends",
            _ => null,
        };
    }

    private static bool IsPrintable(string value)
    {
        return value.Length > 0 && value[0] != ' ' && value[^1] != ' ' && value.All(character => character is >= ' ' and <= '~');
    }

    /// <summary>Whether a set such as <c>a-z0-9.</c> holds a character.</summary>
    private static bool Holds(string set, char character)
    {
        for (int index = 0; index < set.Length; index++)
        {
            if (index + 2 < set.Length && set[index + 1] == '-')
            {
                if (character >= set[index] && character <= set[index + 2])
                {
                    return true;
                }

                index += 2;
            }
            else if (character == set[index])
            {
                return true;
            }
        }

        return false;
    }
}
