using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Adapter;

/// <summary>What a user's handler throws.</summary>
internal sealed class HandlerFailedException(string message) : Exception(message);

/// <summary>Something that goes on between requests.</summary>
internal interface IBackground
{
    Task<JsonNode?> CommandAsync(string name, JsonElement request);

    Task CancelAsync();
}

/// <summary>A consumer with a handler. Every handler waits for the runner to say how it ends.</summary>
internal sealed class ConsumerRun : IBackground, IDisposable
{
    private readonly Adapter _adapter;
    private readonly string _label;
    private readonly bool _failErrorHook;
    private readonly CancellationTokenSource _cancel = new();
    private readonly ConcurrentDictionary<long, TaskCompletionSource<string>> _outcomes = new();
    private readonly Mq9Consumer _consumer;
    private readonly Task _ended;
    private long _deliveries;

    public ConsumerRun(Adapter adapter, Mq9Client client, JsonElement request)
    {
        _adapter = adapter;
        _label = request.GetProperty("as").GetString()!;
        _failErrorHook = request.TryGetProperty("fail_error_hook", out JsonElement fail) && fail.GetBoolean();
        JsonElement args = request.GetProperty("args");
        ConsumeOptions options = Dispatch.Consume(args) with { OnError = FailedAsync };
        _consumer = client.Consume(
            Arguments.Text(args, "mail_address") ?? "", Arguments.Text(args, "group_name") ?? "", HandleAsync, options, _cancel.Token);
        _ended = WaitAsync();
    }

    public async Task<JsonNode?> CommandAsync(string name, JsonElement request)
    {
        switch (name)
        {
            case "finish":
                if (_outcomes.TryRemove(request.GetProperty("delivery").GetInt64(), out TaskCompletionSource<string>? outcome))
                {
                    outcome.TrySetResult(request.GetProperty("outcome").GetString()!);
                }

                break;
            case "stop" when Mutants.Is("stop-does-not-wait"):
                _ = _consumer.StopAsync();
                break;
            case "stop":
                await _consumer.StopAsync();
                break;
            default:
                throw new NotUnderstoodException($"a consumer has no '{name}'");
        }

        return new JsonObject();
    }

    public async Task CancelAsync()
    {
        await _cancel.CancelAsync();
        await _ended;
    }

    public void Dispose() => _cancel.Dispose();

    private async Task HandleAsync(Mq9Message message, CancellationToken cancellationToken)
    {
        long number = Interlocked.Increment(ref _deliveries);
        TaskCompletionSource<string> outcome = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _outcomes[number] = outcome;
        _adapter.Write(new JsonObject { ["event"] = "message", ["of"] = _label, ["delivery"] = number, ["message"] = Dispatch.Write(message, []) });
        string how = await outcome.Task.WaitAsync(cancellationToken);
        if (how == "fail" && !Mutants.Is("failure-swallowed"))
        {
            throw new HandlerFailedException("the runner said that this handler fails");
        }

        if (how == "stop")
        {
            await _consumer.StopAsync();
        }
    }

    private Task FailedAsync(Exception error, Mq9Message? message)
    {
        JsonObject fields = error is OperationCanceledException ? new JsonObject { ["kind"] = "handler", ["message"] = error.Message } : Results.Error(error);
        if (message is not null)
        {
            fields["msg_id"] = Results.Id(message.MsgId);
        }

        _adapter.Write(new JsonObject { ["event"] = "error", ["of"] = _label, ["error"] = fields });
        return _failErrorHook ? throw new HandlerFailedException("the runner said that the error hook fails") : Task.CompletedTask;
    }

    private async Task WaitAsync()
    {
        JsonObject line = new() { ["event"] = "ended", ["of"] = _label };
        try
        {
            await _consumer.Completion;
            line["how"] = "stopped";
        }
        catch (OperationCanceledException)
        {
            line["how"] = "cancelled";
        }
        catch (Exception error)
        {
            line["how"] = "failed";
            line["error"] = Results.Error(error);
        }

        _adapter.Write(line);
    }
}

/// <summary>An <c>await foreach</c>, taken apart: the runner says when it goes on.</summary>
internal sealed class IterationRun : IBackground, IDisposable
{
    private readonly CancellationTokenSource _cancel = new();
    private readonly Dictionary<string, Mq9Message> _messages = [];
    private readonly IAsyncEnumerable<Mq9Message> _loop;
    private IAsyncEnumerator<Mq9Message>? _enumerator;
    private Task _next = Task.CompletedTask;

    public IterationRun(Mq9Client client, JsonElement args)
    {
        _loop = client.ConsumeAsync(
            Arguments.Text(args, "mail_address") ?? "", Arguments.Text(args, "group_name") ?? "", Dispatch.Consume(args));
    }

    public async Task<JsonNode?> CommandAsync(string name, JsonElement request)
    {
        switch (name)
        {
            case "next":
                _enumerator ??= _loop.GetAsyncEnumerator(_cancel.Token);
                Task<bool> next = _enumerator.MoveNextAsync().AsTask();
                _next = next;
                if (!await next)
                {
                    return null;
                }

                Mq9Message message = _enumerator.Current;
                _messages[message.MsgId.ToString(CultureInfo.InvariantCulture)] = message;
                return Dispatch.Write(message, []);
            case "leave" or "stop":
                await LeaveAsync();
                return new JsonObject();
            case "message_ack":
                await Message(request).AckAsync();
                return new JsonObject();
            case "message_nack":
                await Message(request).NackAsync(Arguments.Integer(request, "delay_ms"));
                return new JsonObject();
            case "message_renew":
                return JsonValue.Create(await Message(request).RenewAsync(Arguments.Integer(request, "lease_ms")));
            default:
                throw new NotUnderstoodException($"an iteration has no '{name}'");
        }
    }

    public async Task CancelAsync()
    {
        await _cancel.CancelAsync();
        await LeaveAsync();
    }

    public void Dispose() => _cancel.Dispose();

    private Mq9Message Message(JsonElement request) => _messages[request.GetProperty("msg_id").GetString()!];

    private async Task LeaveAsync()
    {
        await _next.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_enumerator is not null)
        {
            await _enumerator.DisposeAsync();
        }
    }
}

/// <summary>An agent that stays registered until it is stopped.</summary>
internal sealed class KeepAliveRun(AgentKeepAlive keepAlive) : IBackground
{
    public async Task<JsonNode?> CommandAsync(string name, JsonElement request)
    {
        if (name != "stop")
        {
            throw new NotUnderstoodException($"a keep-alive has no '{name}'");
        }

        if (!Mutants.Is("keep-alive-stays"))
        {
            await keepAlive.StopAsync();
        }

        return new JsonObject();
    }

    public async Task CancelAsync()
    {
        try
        {
            await keepAlive.StopAsync();
        }
        catch (Mq9Exception error)
        {
            await Console.Error.WriteLineAsync(error.Message);
        }
    }
}
