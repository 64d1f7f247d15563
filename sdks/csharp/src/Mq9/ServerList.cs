namespace Mq9;

/// <summary>Server URLs, checked.</summary>
internal static class ServerList
{
    private static readonly string[] Schemes = ["nats", "tls", "ws", "wss"];

    /// <summary>URLs from texts that hold one URL or several with commas between.</summary>
    /// <exception cref="Mq9InvalidArgumentException">There is none, or one is no URL of a NATS server.</exception>
    public static List<string> Parse(IEnumerable<string> servers)
    {
        if (servers is null)
        {
            throw Encode.Invalid("servers", "must not be null");
        }

        List<string> urls = servers
            .SelectMany(text => (text ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
            .Select(Checked)
            .Distinct(StringComparer.Ordinal)
            .ToList();
        if (urls.Count == 0)
        {
            throw Encode.Invalid("servers", "must not be empty");
        }

        return urls.Select(IsWebSocket).Distinct().Count() == 1
            ? urls
            : throw Encode.Invalid("servers", "must be all WebSocket URLs or none");
    }

    /// <summary>A URL without its credentials, to be shown.</summary>
    public static string Shown(string url)
    {
        int at = url.LastIndexOf('@');
        int scheme = url.IndexOf("://", StringComparison.Ordinal);
        return at < 0 || scheme < 0 ? url : url[..(scheme + 3)] + url[(at + 1)..];
    }

    /// <summary>The URL of a server that another server told of: scheme and credentials are those of that other one.</summary>
    public static string Beside(string url, string hostAndPort)
    {
        int scheme = url.IndexOf("://", StringComparison.Ordinal) + 3;
        int at = url.LastIndexOf('@');
        return url[..scheme] + (at < 0 ? "" : url[scheme..(at + 1)]) + hostAndPort;
    }

    private static bool IsWebSocket(string url) => url.StartsWith("ws", StringComparison.OrdinalIgnoreCase);

    private static string Checked(string text)
    {
        string url = text.Contains("://", StringComparison.Ordinal) ? text : "nats://" + text;
        if (!Uri.TryCreate(url, UriKind.Absolute, out Uri? uri)
            || !Schemes.Contains(uri.Scheme, StringComparer.OrdinalIgnoreCase)
            || uri.Host.Length == 0
            || url.Any(char.IsWhiteSpace))
        {
            throw Encode.Invalid("servers", $"'{Shown(url)}' is no URL like nats://host:4222");
        }

        bool needsPort = uri.Port < 0 && !IsWebSocket(url);
        return needsPort ? url.TrimEnd('/', ':') + ":4222" : url.TrimEnd('/');
    }
}
