using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace Mq9;

// The fields are generated; this is what a message can do.
public sealed partial record Mq9Message
{
    internal Delivery? Delivery { get; set; }

    /// <summary>The payload as text.</summary>
    /// <exception cref="DecoderFallbackException">It is not UTF-8.</exception>
    public string Text() => Encode.StrictUtf8.GetString(Payload.Span);

    /// <summary>The payload as a JSON value, digits and order kept.</summary>
    /// <exception cref="JsonException">It is no JSON.</exception>
    public JsonElement Json()
    {
        using JsonDocument document = JsonDocument.Parse(Payload, Decode.Options);
        return document.RootElement.Clone();
    }

    /// <summary>The payload as a JSON value that can be changed.</summary>
    /// <exception cref="JsonException">It is no JSON.</exception>
    public JsonNode? JsonNode() => System.Text.Json.Nodes.JsonNode.Parse(Payload.Span, documentOptions: Decode.Options);

    /// <summary>The payload as a value of your own, by a source-generated description of its type.</summary>
    /// <typeparam name="T">Its type.</typeparam>
    /// <param name="type">The description, from a <c>JsonSerializerContext</c>.</param>
    /// <exception cref="JsonException">It is no JSON, or none of this type.</exception>
    public T? Json<T>(JsonTypeInfo<T> type) => JsonSerializer.Deserialize(Payload.Span, type);

    /// <summary>Confirms this message for its consumer group: it never comes again.</summary>
    /// <remarks>Only for messages that a consumer delivered; others are confirmed by <see cref="Mq9Client.AckAsync"/>.</remarks>
    /// <param name="cancellationToken">Cancels the call.</param>
    /// <exception cref="Mq9Exception">It could not be confirmed; it comes again when its lease is over.</exception>
    public async Task AckAsync(CancellationToken cancellationToken = default)
    {
        Delivery delivery = Delivered("AckAsync");
        AckOptions options = new() { Timeout = delivery.Timeout };
        await delivery.Client.AckAsync(delivery.MailAddress, delivery.GroupName, MsgId, options, cancellationToken).ConfigureAwait(false);
        delivery.Settled = true;
    }

    /// <summary>Gives this message back to its consumer group, unless another consumer holds it by now.</summary>
    /// <param name="delayMs">Milliseconds until it comes again; null: at once.</param>
    /// <param name="cancellationToken">Cancels the call.</param>
    /// <exception cref="Mq9Exception">It could not be given back; it comes again when its lease is over.</exception>
    public async Task NackAsync(long? delayMs = null, CancellationToken cancellationToken = default)
    {
        Delivery delivery = Delivered("NackAsync");
        NackOptions options = new() { LeaseId = delivery.LeaseId, DelayMs = delayMs, Timeout = delivery.Timeout };
        await delivery.Client.NackAsync(delivery.MailAddress, delivery.GroupName, [MsgId], options, cancellationToken).ConfigureAwait(false);
        delivery.Settled = true;
    }

    /// <summary>Keeps this message hidden from the rest of its group for longer.</summary>
    /// <remarks>A consumer does so by itself while a handler runs.</remarks>
    /// <param name="leaseMs">Milliseconds from now; null: the lease that it came under.</param>
    /// <param name="cancellationToken">Cancels the call.</param>
    /// <returns>Whether it is still ours; if not, its lease was over before.</returns>
    /// <exception cref="Mq9Exception">It could not be renewed.</exception>
    public async Task<bool> RenewAsync(long? leaseMs = null, CancellationToken cancellationToken = default)
    {
        Delivery delivery = Delivered("RenewAsync");
        RenewOptions options = new() { LeaseId = delivery.LeaseId, Timeout = delivery.Timeout };
        IReadOnlyList<long> renewed = await delivery.Client.RenewAsync(
            delivery.MailAddress, delivery.GroupName, [MsgId], leaseMs ?? delivery.LeaseMs, options, cancellationToken).ConfigureAwait(false);
        return renewed.Contains(MsgId);
    }

    /// <summary>The fields, without those of the consumer that delivered it.</summary>
#pragma warning disable IDE0051 // The ToString of every record calls it.
    private bool PrintMembers(StringBuilder builder)
    {
        builder.Append("MsgId = ").Append(MsgId).Append(", Priority = ").Append(Priority).Append(", Payload = ").Append(Payload.Length).Append(" bytes");
        return true;
    }
#pragma warning restore IDE0051

    private Delivery Delivered(string method)
    {
        return Delivery ?? throw new Mq9InvalidArgumentException(
            $"message {MsgId} did not come from a consumer: call the client's {method} instead", ErrorCode.InvalidArgument, "message");
    }
}

/// <summary>Through whom, for which group and under which lease a message was delivered.</summary>
internal sealed record Delivery(Mq9Client Client, string MailAddress, string GroupName, string LeaseId, long LeaseMs, TimeSpan? Timeout)
{
    private volatile bool _settled;

    public bool Settled
    {
        get => _settled;
        set => _settled = value;
    }
}
