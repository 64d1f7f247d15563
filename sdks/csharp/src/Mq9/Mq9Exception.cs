namespace Mq9;

/// <summary>Base of every exception that this package raises on purpose.</summary>
/// <remarks>
/// Cancellation is not among them: <see cref="OperationCanceledException"/> passes through untouched. Sealed
/// subclasses stand for the kinds of failure; tell codes apart by a filter:
/// <c>catch (Mq9Exception error) when (error.Code == ErrorCode.MailboxNotFound)</c>.
/// </remarks>
public abstract class Mq9Exception : Exception
{
    private protected Mq9Exception(ErrorKind kind, string message, ErrorCode? code, string? field, Exception? inner)
        : base(message, inner)
    {
        Kind = kind;
        Code = code;
        Field = field;
    }

    /// <summary>How the call failed.</summary>
    public ErrorKind Kind { get; }

    /// <summary>What was wrong, also a code that this version does not know; null if there is none.</summary>
    public ErrorCode? Code { get; }

    /// <summary>The argument or field that was wrong, as the protocol spells it; null if none is named.</summary>
    public string? Field { get; }

    /// <summary>The operation that failed, such as <c>msg.send</c>; null if it was no operation.</summary>
    public string? Operation { get; internal set; }
}
