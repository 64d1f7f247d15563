namespace Mq9;

/// <summary>A running consumer; made by <see cref="Mq9Client.Consume"/>.</summary>
public sealed class Mq9Consumer : IAsyncDisposable
{
    private readonly ConsumeLoop _loop;

    internal Mq9Consumer(ConsumeLoop loop)
    {
        _loop = loop;
        Completion = loop.Start();
    }

    /// <summary>Ends when the consumer has ended; cancelled if its token was.</summary>
    public Task Completion { get; }

    /// <summary>Messages handed to the handler.</summary>
    public long Delivered => _loop.Delivered;

    /// <summary>Messages confirmed.</summary>
    public long Acknowledged => _loop.Acknowledged;

    /// <summary>Messages whose handler failed.</summary>
    public long Failed => _loop.Failed;

    /// <summary>Messages given back.</summary>
    public long GivenBack => _loop.GivenBack;

    /// <summary>ACKs that failed; those messages come again.</summary>
    public long FailedAcks => _loop.FailedAcks;

    /// <summary>FETCHes that failed; each was followed by a pause.</summary>
    public long FailedFetches => _loop.FailedFetches;

    /// <summary>Ends the consumer: waits for running handlers and their ACKs, gives back what was not started.</summary>
    /// <remarks>Calling it again is fine. From inside a handler it only asks for the end and returns.</remarks>
    public Task StopAsync() => _loop.StopAsync();

    /// <summary>The same as <see cref="StopAsync"/>.</summary>
    public ValueTask DisposeAsync() => new(StopAsync());
}
