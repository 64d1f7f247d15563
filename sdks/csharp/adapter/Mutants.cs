using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Adapter;

/// <summary>Broken pieces, one of them chosen by MQ9_ADAPTER_MUTANT: the suite has to notice each. Nothing else uses this.</summary>
internal static class Mutants
{
    private static readonly string? Chosen = Environment.GetEnvironmentVariable("MQ9_ADAPTER_MUTANT");

    /// <summary>Whether this piece is the broken one.</summary>
    public static bool Is(string name) => Chosen == name;

    /// <summary>Breaks what is told of an error.</summary>
    public static void Spoil(JsonObject error)
    {
        if (Is("code-dropped"))
        {
            error.Remove("code");
        }

        if (Is("kind-always-server"))
        {
            error["kind"] = ErrorKind.Server.Value;
        }

        if (Is("timeout-as-connection-closed") && (string?)error["kind"] == ErrorKind.Timeout.Value)
        {
            error["kind"] = ErrorKind.ConnectionClosed.Value;
        }
    }

    /// <summary>Breaks what the SDK sends.</summary>
    public static Mq9Client Spoil(Mq9Client client)
    {
        return Is("send-twice") || Is("renew-never") || Is("nack-delay-fixed") || Is("deliver-for-ever")
            ? client.Through(connection => new SpoiledConnection(connection))
            : client;
    }

    private sealed class SpoiledConnection(IConnection inner) : IConnection
    {
        private JsonNode? _deliver;

        public bool IsClosed => inner.IsClosed;

        public bool IsConnected => inner.IsConnected;

        public string? Url => inner.Url;

        public bool IsInjected => inner.IsInjected;

        public bool IsListening => inner.IsListening;

        public async Task<ReadOnlyMemory<byte>> RequestAsync(
            Call call, TimeSpan timeout, Func<ReadOnlyMemory<byte>, Task>? abandoned, CancellationToken cancellationToken)
        {
            string name = call.Operation.Name;
            if (name == "msg.renew" && Is("renew-never"))
            {
                return """{"error":"","renewed":[]}"""u8.ToArray();
            }

            if (name == "msg.nack" && Is("nack-delay-fixed"))
            {
                call = With(call, body => body["delay_ms"] = 1000);
            }

            if (name == "msg.fetch" && Is("deliver-for-ever"))
            {
                call = With(call, body => _deliver = (body["deliver"] ??= _deliver?.DeepClone())?.DeepClone());
            }

            try
            {
                return await inner.RequestAsync(call, timeout, abandoned, cancellationToken);
            }
            catch (Mq9TimeoutException) when (name == "msg.send" && Is("send-twice"))
            {
                return await inner.RequestAsync(call, timeout, abandoned, cancellationToken);
            }
        }

        public Task FlushAsync(TimeSpan timeout) => inner.FlushAsync(timeout);

        public Task SettleAsync(TimeSpan timeout) => inner.SettleAsync(timeout);

        public ValueTask DisposeAsync() => inner.DisposeAsync();

        private static Call With(Call call, Action<JsonObject> change)
        {
            JsonObject body = JsonNode.Parse(call.Body.Span)!.AsObject();
            change(body);
            if (body.TryGetPropertyValue("deliver", out JsonNode? deliver) && deliver is null)
            {
                body.Remove("deliver");
            }

            return new Call(call.Operation, call.Subject)
            {
                Body = JsonSerializer.SerializeToUtf8Bytes<JsonNode>(body),
                Headers = call.Headers,
                Timeout = call.Timeout,
                WaitMs = call.WaitMs,
                Repeatable = call.Repeatable,
                LeasedTo = call.LeasedTo,
            };
        }
    }
}
