namespace Mq9;

/// <summary>What the runtime has to know of an operation; generated from the specification.</summary>
/// <param name="name">Its name, such as <c>msg.send</c>.</param>
/// <param name="retriesOn">The kinds of failure, and codes, after which it may be tried again.</param>
/// <param name="giveUpMs">When retries end, in milliseconds after the first attempt; 0: only the number of attempts counts.</param>
internal sealed class Operation(string name, HashSet<string> retriesOn, long giveUpMs)
{
    public string Name { get; } = name;

    public long GiveUpMs { get; } = giveUpMs;

    /// <summary>Whether a failure allows another attempt.</summary>
    public bool MayRetry(Mq9Exception error)
    {
        return retriesOn.Contains(error.Kind.Value)
            || (error.Kind == ErrorKind.Server && error.Code is { } code && retriesOn.Contains(code.Value));
    }
}

/// <summary>One call of an operation, ready to be sent.</summary>
internal sealed class Call(Operation operation, string subject)
{
    public Operation Operation { get; } = operation;

    public string Subject { get; } = subject;

    public ReadOnlyMemory<byte> Body { get; init; }

    public IReadOnlyDictionary<string, string>? Headers { get; init; }

    /// <summary>For each attempt; null: the client's.</summary>
    public TimeSpan? Timeout { get; init; }

    /// <summary>Milliseconds that the broker may take on top.</summary>
    public long WaitMs { get; init; }

    /// <summary>Whether this call may be tried again at all.</summary>
    public bool Repeatable { get; init; } = true;

    /// <summary>Mailbox and consumer group, if the reply may bring messages under a lease.</summary>
    public (string MailAddress, string GroupName)? LeasedTo { get; init; }
}
