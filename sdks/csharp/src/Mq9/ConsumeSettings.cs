namespace Mq9;

/// <summary>The options of a consumer, checked and complete.</summary>
internal sealed record ConsumeSettings
{
    public required string MailAddress { get; init; }

    public required string GroupName { get; init; }

    public required long NumMsgs { get; init; }

    public required long MaxWaitMs { get; init; }

    public required long LeaseMs { get; init; }

    public required long Concurrency { get; init; }

    public required bool AutoAck { get; init; }

    /// <summary>Where a new group starts; sent until a FETCH has succeeded.</summary>
    public required FetchOptions Start { get; init; }

    public required Func<Exception, Mq9Message?, Task>? OnError { get; init; }

    public required TimeSpan? Timeout { get; init; }
}
