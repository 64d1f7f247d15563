namespace Mq9;

/// <summary>What carries requests. Tests put a script in place of NATS.</summary>
internal interface IConnection : IAsyncDisposable
{
    /// <summary>Whether it was closed for good.</summary>
    bool IsClosed { get; }

    /// <summary>Whether there is a connection to a server right now.</summary>
    bool IsConnected { get; }

    /// <summary>The server that it is connected to, without credentials.</summary>
    string? Url { get; }

    /// <summary>Whether the NATS connection belongs to somebody else.</summary>
    bool IsInjected { get; }

    /// <summary>Whether replies of cancelled requests are still waited for, or handled.</summary>
    bool IsListening { get; }

    /// <summary>Sends a request and waits for its reply.</summary>
    /// <param name="call">What to send.</param>
    /// <param name="timeout">In all, from now.</param>
    /// <param name="abandoned">Called with the reply if it comes after the caller was cancelled.</param>
    /// <param name="cancellationToken">Cancels the request.</param>
    Task<ReadOnlyMemory<byte>> RequestAsync(
        Call call, TimeSpan timeout, Func<ReadOnlyMemory<byte>, Task>? abandoned, CancellationToken cancellationToken);

    /// <summary>Makes a round trip to the server, so that what it has sent so far has been handled.</summary>
    Task FlushAsync(TimeSpan timeout);

    /// <summary>Waits until replies of cancelled requests have come and been handled.</summary>
    Task SettleAsync(TimeSpan timeout);
}
