using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Threading.Channels;
using Microsoft.Extensions.Primitives;
using NATS.Client.Core;

namespace Mq9;

/// <summary>One NATS connection with one subscription for all replies.</summary>
internal sealed class NatsLink : IAsyncDisposable
{
    private readonly bool _isOwned;
    private readonly string _inbox;
    private readonly TaskCompletionSource _lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentDictionary<string, TaskCompletionSource<ReadOnlyMemory<byte>>> _pending = new(StringComparer.Ordinal);
    private INatsSub<byte[]>? _subscription;
    private Task _reading = Task.CompletedTask;
    private long _next;

    public NatsLink(INatsConnection nats, bool isOwned)
    {
        Nats = nats;
        _isOwned = isOwned;
        // Not below the connection's own inbox: the library keeps what is there to itself, and knows no wildcards in it.
        _inbox = nats.Opts.InboxPrefix + "." + RandomNumberGenerator.GetHexString(22, lowercase: true);
        nats.ConnectionDisconnected += OnDisconnectedAsync;
    }

    public INatsConnection Nats { get; }

    /// <summary>Ends when the connection has been lost.</summary>
    public Task Lost => _lost.Task;

    public bool IsOpen => Nats.ConnectionState == NatsConnectionState.Open && !(_isOwned && Lost.IsCompleted);

    /// <summary>Begins to listen for replies.</summary>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        // A reply that is dropped is a request that fails, and the reader below never takes long: it may be waited for.
        NatsSubOpts options = new() { ChannelOpts = new NatsSubChannelOpts { Capacity = 1 << 16, FullMode = BoundedChannelFullMode.Wait } };
        _subscription = await Nats.SubscribeCoreAsync(
            _inbox + ".*", serializer: NatsRawSerializer<byte[]>.Default, opts: options, cancellationToken: cancellationToken).ConfigureAwait(false);
        _reading = ReadAsync(_subscription.Msgs);
    }

    /// <summary>Sends a request; the reply comes by the task that it gives.</summary>
    public async Task<PendingReply> SendAsync(Call call, CancellationToken cancellationToken)
    {
        string token = Interlocked.Increment(ref _next).ToString(CultureInfo.InvariantCulture);
        TaskCompletionSource<ReadOnlyMemory<byte>> reply = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _pending[token] = reply;
        PendingReply pending = new(this, token, reply.Task);
        try
        {
            NatsHeaders? headers = null;
            if (call.Headers is { Count: > 0 })
            {
                headers = new NatsHeaders(call.Headers.Count);
                foreach ((string name, string value) in call.Headers)
                {
                    headers[name] = new StringValues(value);
                }
            }

            await Nats.PublishAsync(
                call.Subject,
                call.Body,
                headers,
                _inbox + "." + token,
                NatsRawSerializer<ReadOnlyMemory<byte>>.Default,
                cancellationToken: cancellationToken).ConfigureAwait(false);
            return pending;
        }
        catch
        {
            pending.Forget();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        Nats.ConnectionDisconnected -= OnDisconnectedAsync;
        FailPending("the client was closed before the reply came");
        if (_isOwned)
        {
            await Nats.DisposeAsync().ConfigureAwait(false);
        }
        else if (_subscription is not null)
        {
            await _subscription.DisposeAsync().ConfigureAwait(false);
        }

        await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    private void FailPending(string why)
    {
        foreach (TaskCompletionSource<ReadOnlyMemory<byte>> reply in _pending.Values)
        {
            reply.TrySetException(new Mq9ConnectionClosedException(why));
        }
    }

    private ValueTask OnDisconnectedAsync(object? sender, NatsEventArgs args)
    {
        FailPending("the connection broke before the reply came");
        _lost.TrySetResult();
        return ValueTask.CompletedTask;
    }

    private async Task ReadAsync(ChannelReader<NatsMsg<byte[]>> messages)
    {
        await foreach (NatsMsg<byte[]> message in messages.ReadAllAsync().ConfigureAwait(false))
        {
            string token = message.Subject[(message.Subject.LastIndexOf('.') + 1)..];
            if (!_pending.TryGetValue(token, out TaskCompletionSource<ReadOnlyMemory<byte>>? reply))
            {
                continue;
            }

            if (message.Headers?.Code == 503 && message.Data is not { Length: > 0 })
            {
                reply.TrySetException(new Mq9NoRespondersException("no mq9 broker answers on this NATS server"));
            }
            else
            {
                reply.TrySetResult(message.Data);
            }
        }
    }

    /// <summary>A request that was sent.</summary>
    internal sealed class PendingReply(NatsLink link, string token, Task<ReadOnlyMemory<byte>> reply)
    {
        public Task<ReadOnlyMemory<byte>> Reply { get; } = reply;

        /// <summary>Stops listening for the reply.</summary>
        public void Forget() => link._pending.TryRemove(token, out _);
    }
}
