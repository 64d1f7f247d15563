using System.Collections.Concurrent;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.Logging.Abstractions;

namespace Mq9.Tests;

/// <summary>Answers requests by a script instead of sending them.</summary>
internal sealed class FakeConnection(Func<Call, CancellationToken, Task<ReadOnlyMemory<byte>>> answer) : IConnection
{
    private readonly ConcurrentQueue<Call> _calls = new();
    private readonly ConcurrentDictionary<Task, bool> _late = new();

    public IReadOnlyList<Call> Calls => [.. _calls];

    public bool IsClosed { get; private set; }

    public bool IsConnected => !IsClosed;

    public string? Url => null;

    public bool IsInjected => false;

    public bool IsListening => !_late.IsEmpty;

    public static Mq9Client Client(Func<Call, CancellationToken, Task<ReadOnlyMemory<byte>>> answer, out FakeConnection connection)
    {
        connection = new FakeConnection(answer);
        return new Mq9Client(connection, TimeSpan.FromSeconds(5), NullLogger.Instance) { RetryPauseMs = 0.01 };
    }

    public static Mq9Client Client(ReadOnlyMemory<byte> reply, out FakeConnection connection)
    {
        return Client((_, _) => Task.FromResult(reply), out connection);
    }

    public static JsonObject Body(Call call) => JsonNode.Parse(call.Body.Span)!.AsObject();

    public IReadOnlyList<Call> Of(string operation) => [.. _calls.Where(call => call.Operation.Name == operation)];

    public async Task<ReadOnlyMemory<byte>> RequestAsync(
        Call call, TimeSpan timeout, Func<ReadOnlyMemory<byte>, Task>? abandoned, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _calls.Enqueue(call);
        Task<ReadOnlyMemory<byte>> reply = answer(call, abandoned is null ? cancellationToken : CancellationToken.None);
        try
        {
            return await reply.WaitAsync(cancellationToken);
        }
        catch (OperationCanceledException) when (abandoned is not null && cancellationToken.IsCancellationRequested)
        {
            Task late = LateAsync(reply, abandoned);
            _late[late] = true;
            _ = late.ContinueWith(done => _late.TryRemove(done, out _), TaskScheduler.Default);
            throw;
        }
    }

    public Task FlushAsync(TimeSpan timeout) => Task.CompletedTask;

    public Task SettleAsync(TimeSpan timeout) => Task.WhenAll(_late.Keys);

    public ValueTask DisposeAsync()
    {
        IsClosed = true;
        return ValueTask.CompletedTask;
    }

    private static async Task LateAsync(Task<ReadOnlyMemory<byte>> reply, Func<ReadOnlyMemory<byte>, Task> abandoned)
    {
        await abandoned(await reply);
    }
}

/// <summary>A mailbox with leases and no clock: what is given back comes again, what is confirmed does not.</summary>
internal sealed class FakeMailbox(int count)
{
    private readonly object _gate = new();
    private readonly Dictionary<long, string> _leased = [];
    private readonly Dictionary<long, int> _counts = [];
    private TaskCompletionSource _arrived = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _fetches;

    public HashSet<long> Confirmed { get; } = [];

    public int Leased
    {
        get
        {
            lock (_gate)
            {
                return _leased.Count;
            }
        }
    }

    /// <summary>What to answer instead, by operation; null: what is right.</summary>
    public Func<Call, string?> Instead { get; set; } = static _ => null;

    /// <summary>Waited for before a FETCH is answered.</summary>
    public Task Held { get; set; } = Task.CompletedTask;

    public async Task<ReadOnlyMemory<byte>> AnswerAsync(Call call, CancellationToken cancellationToken)
    {
        if (Instead(call) is { } other)
        {
            return System.Text.Encoding.UTF8.GetBytes(other);
        }

        JsonObject body = FakeConnection.Body(call);
        JsonObject reply = call.Operation.Name == "msg.fetch" ? await FetchAsync(body, cancellationToken) : Other(call.Operation.Name, body);
        return JsonSerializer.SerializeToUtf8Bytes<JsonNode>(reply);
    }

    private JsonObject Other(string operation, JsonObject body)
    {
        long[] ids = body["msg_ids"] is JsonArray list ? [.. list.Select(id => (long)id!)] : [(long)body["msg_id"]!];
        lock (_gate)
        {
            foreach (long id in ids)
            {
                if (operation == "msg.ack")
                {
                    Confirmed.Add(id);
                    _leased.Remove(id);
                }
                else if (operation == "msg.nack" && _leased.TryGetValue(id, out string? lease) && lease == (string?)body["lease_id"])
                {
                    _leased.Remove(id);
                }
            }

            _arrived.TrySetResult();
        }

        JsonObject reply = new() { ["error"] = "" };
        if (operation == "msg.renew")
        {
            reply["renewed"] = new JsonArray([.. ids.Select(id => (JsonNode?)JsonValue.Create(id))]);
        }

        return reply;
    }

    private async Task<JsonObject> FetchAsync(JsonObject body, CancellationToken cancellationToken)
    {
        await Held;
        while (true)
        {
            Task arrived;
            lock (_gate)
            {
                long[] ready = [.. Enumerable.Range(0, count).Select(id => (long)id).Where(id => !Confirmed.Contains(id) && !_leased.ContainsKey(id))];
                if (ready.Length > 0)
                {
                    return Leases(ready.Take((int)(body["config"]!["num_msgs"]!)));
                }

                _arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                arrived = _arrived.Task;
            }

            await arrived.WaitAsync(cancellationToken);
        }
    }

    private JsonObject Leases(IEnumerable<long> ids)
    {
        string lease = "L" + ++_fetches;
        JsonArray messages = [];
        foreach (long id in ids)
        {
            _leased[id] = lease;
            _counts[id] = _counts.GetValueOrDefault(id) + 1;
            messages.Add((JsonNode)new JsonObject { ["msg_id"] = id, ["payload"] = "", ["encoding"] = "base64", ["delivery_count"] = _counts[id] });
        }

        return new JsonObject { ["error"] = "", ["messages"] = messages, ["lease_id"] = lease };
    }
}
