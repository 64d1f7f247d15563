using System.Collections.Concurrent;
using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using NATS.Client.Core;

namespace Mq9;

/// <summary>A connection to mq9: every operation, consumers and keep-alives. Safe to use from many threads at once.</summary>
/// <example>
/// <code>
/// await using Mq9Client client = await Mq9Client.ConnectAsync("nats://127.0.0.1:4222");
/// string inbox = await client.MailboxCreateAsync("translator.inbox", new MailboxCreateOptions { Ttl = 3600 });
/// await client.SendAsync(inbox, "hello");
/// </code>
/// </example>
public sealed partial class Mq9Client : IAsyncDisposable
{
    /// <summary>Set where our own code may still send while the client closes.</summary>
    private static readonly AsyncLocal<bool> IsInternal = new();

    private readonly IConnection _connection;
    private readonly TimeSpan _timeout;
    private readonly ConcurrentDictionary<Task, bool> _calls = new();
    private readonly ConcurrentDictionary<Task, bool> _background = new();
    private readonly ConcurrentDictionary<IPart, bool> _parts = new();
    private readonly object _gate = new();
    private Task? _closing;
    private volatile bool _closed;

    internal Mq9Client(IConnection connection, TimeSpan timeout, ILogger logger)
    {
        _connection = connection;
        _timeout = timeout;
        Logger = logger;
    }

    /// <summary>Something that ends with the client.</summary>
    internal interface IPart
    {
        Task CloseAsync();
    }

    /// <summary>Whether it was closed; calls fail then.</summary>
    public bool IsClosed => _closed || _connection.IsClosed;

    /// <summary>Whether there is a connection to a server right now.</summary>
    public bool IsConnected => _connection.IsConnected;

    /// <summary>The server that it is connected to, without credentials; null while there is none.</summary>
    public string? ConnectedUrl => _connection.Url;

    internal ILogger Logger { get; }

    /// <summary>The first pause before another attempt, in milliseconds. Tests make it short.</summary>
    internal double RetryPauseMs { get; set; } = Constants.RetryPauseMs;

    /// <summary>Connects to one of the servers and reconnects for ever.</summary>
    /// <remarks>
    /// While the connection is down, a call waits for it as long as its timeout allows and then fails with
    /// <see cref="Mq9TimeoutException"/>; nothing was sent then. A call that was waiting for its reply when the
    /// connection broke fails with <see cref="Mq9ConnectionClosedException"/> at once, unless it may be tried again.
    /// </remarks>
    /// <param name="servers">A server URL, or several with commas between. Each is tried once, in this order.</param>
    /// <param name="options">How to connect.</param>
    /// <param name="cancellationToken">Cancels connecting.</param>
    /// <exception cref="Mq9InvalidArgumentException">An option is not as it should be.</exception>
    /// <exception cref="Mq9ConnectionClosedException">No server could be reached; with code unauthorized if one refused the credentials.</exception>
    public static Task<Mq9Client> ConnectAsync(
        string servers = Constants.ConnectServers, ConnectOptions? options = null, CancellationToken cancellationToken = default)
    {
        return ConnectAsync([servers], options, cancellationToken);
    }

    /// <summary>Connects to one of the servers and reconnects for ever.</summary>
    /// <param name="servers">Server URLs. Each is tried once, in this order.</param>
    /// <param name="options">How to connect.</param>
    /// <param name="cancellationToken">Cancels connecting.</param>
    /// <exception cref="Mq9InvalidArgumentException">An option is not as it should be.</exception>
    /// <exception cref="Mq9ConnectionClosedException">No server could be reached; with code unauthorized if one refused the credentials.</exception>
    public static async Task<Mq9Client> ConnectAsync(
        IEnumerable<string> servers, ConnectOptions? options = null, CancellationToken cancellationToken = default)
    {
        options = Checked(options);
        ILogger logger = LoggerOf(options);
        Connection connection = new(ServerList.Parse(servers), options, logger);
        await connection.OpenAsync(cancellationToken).ConfigureAwait(false);
        return new Mq9Client(connection, options.Timeout, logger);
    }

    /// <summary>Puts a client on top of an existing NATS connection, which stays open when the client is closed.</summary>
    /// <param name="connection">The connection. Its owner reconnects and closes it.</param>
    /// <param name="options">Only the timeouts and the logger have a meaning here.</param>
    /// <param name="cancellationToken">Cancels connecting.</param>
    /// <exception cref="Mq9ConnectionClosedException">The connection is closed or could not be opened.</exception>
    public static async Task<Mq9Client> ConnectAsync(
        INatsConnection connection, ConnectOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(connection);
        options = Checked(options);
        ILogger logger = LoggerOf(options);
        Connection carrier = new(connection, options, logger);
        await carrier.OpenAsync(cancellationToken).ConfigureAwait(false);
        return new Mq9Client(carrier, options.Timeout, logger);
    }

    /// <summary>Ends consumers and keep-alives, waits for calls in flight and closes the connection.</summary>
    /// <remarks>
    /// It waits for handlers that run, and for at most the client's timeout for calls; what takes longer fails with
    /// <see cref="Mq9ConnectionClosedException"/>. A NATS connection that was given stays open. Closing twice is fine.
    /// </remarks>
    public Task CloseAsync()
    {
        lock (_gate)
        {
            return _closing ??= CloseOnceAsync();
        }
    }

    /// <summary>The same as <see cref="CloseAsync"/>.</summary>
    public ValueTask DisposeAsync() => new(CloseAsync());

    /// <summary>Consumes a mailbox in a consumer group with a handler; it starts at once, in the background.</summary>
    /// <remarks>
    /// Fetches under leases, one batch at a time, and hands each message to the handler. One ACK a message after success;
    /// after a failure the error hook, then NACK with a growing delay. All unfinished messages of a batch are renewed every
    /// third of the lease.
    /// </remarks>
    /// <param name="mailAddress">The mailbox to read.</param>
    /// <param name="groupName">The consumer group that shares the messages.</param>
    /// <param name="handler">Called with each message; its token is cancelled when the consumer is cancelled, not when it is stopped.</param>
    /// <param name="options">What else may be given.</param>
    /// <param name="cancellationToken">Ends the consumer at once; what it had in hand is given back.</param>
    /// <returns>The running consumer, to wait for and to stop.</returns>
    /// <exception cref="Mq9InvalidArgumentException">An argument is not as it should be; nothing was sent.</exception>
    public Mq9Consumer Consume(
        string mailAddress,
        string groupName,
        Func<Mq9Message, CancellationToken, Task> handler,
        ConsumeOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(handler);
        ConsumeSettings settings = Settings(mailAddress, groupName, options ?? new ConsumeOptions());
        RefuseClosed("consume");
        return new Mq9Consumer(new ConsumeLoop(this, settings, handler, cancellationToken));
    }

    /// <summary>Consumes a mailbox in a consumer group by <c>await foreach</c>.</summary>
    /// <remarks>
    /// The first FETCH is sent when the first message is asked for. A message is acknowledged when the loop asks for the next
    /// one, unless <see cref="ConsumeOptions.AutoAck"/> is off; what the loop has left, by <c>break</c> or an exception, is
    /// given back. All unfinished messages of a batch are renewed every third of the lease. The loop ends by itself only when
    /// the client is closed.
    /// </remarks>
    /// <param name="mailAddress">The mailbox to read.</param>
    /// <param name="groupName">The consumer group that shares the messages.</param>
    /// <param name="options">What else may be given.</param>
    /// <param name="cancellationToken">Cancels the loop: OperationCanceledException; what it had in hand is given back.</param>
    /// <exception cref="Mq9InvalidArgumentException">An argument is not as it should be; nothing was sent.</exception>
    public IAsyncEnumerable<Mq9Message> ConsumeAsync(
        string mailAddress, string groupName, ConsumeOptions? options = null, CancellationToken cancellationToken = default)
    {
        ConsumeSettings settings = Settings(mailAddress, groupName, options ?? new ConsumeOptions());
        RefuseClosed("consume");
        return ConsumeLoop.IterateAsync(this, settings, cancellationToken);
    }

    /// <summary>Keeps an agent in the registry until it is stopped, or the client is closed.</summary>
    /// <remarks>
    /// Registers it, reports it regularly, registers it again when the registry has forgotten it, and unregisters it at the
    /// end. Requirements: KEEPALIVE-001, KEEPALIVE-002.
    /// </remarks>
    /// <param name="name">The agent's name; an agent of this name is replaced.</param>
    /// <param name="options">What else to register; its ttl is set here.</param>
    /// <param name="cancellationToken">Cancels registering.</param>
    /// <returns>The registered agent.</returns>
    /// <exception cref="Mq9Exception">It could not be registered.</exception>
    public async Task<AgentKeepAlive> AgentKeepAliveAsync(
        string name, AgentRegisterOptions? options = null, CancellationToken cancellationToken = default)
    {
        AgentKeepAlive keepAlive = new(this, name, (options ?? new AgentRegisterOptions()) with { Ttl = Constants.AgentKeepAliveRegisterTtl });
        await keepAlive.StartAsync(cancellationToken).ConfigureAwait(false);
        return keepAlive;
    }

    /// <summary>A client whose requests pass through something else first: for tests, and for broken pieces on purpose.</summary>
    internal Mq9Client Through(Func<IConnection, IConnection> wrap) => new(wrap(_connection), _timeout, Logger);

    internal void Add(IPart part) => _parts[part] = true;

    internal void Remove(IPart part) => _parts.TryRemove(part, out _);

    /// <summary>Runs something that must end before the client closes.</summary>
    internal void RunInBackground(Func<Task> action)
    {
        Track(_background, RunAsync());

        async Task RunAsync()
        {
            IsInternal.Value = true;
            await action().ConfigureAwait(false);
        }
    }

    private static ConnectOptions Checked(ConnectOptions? options)
    {
        options ??= new ConnectOptions();
        _ = Encode.Timeout("timeout", options.Timeout);
        _ = Encode.Timeout("connect_timeout", options.ConnectTimeout);
        _ = Encode.Timeout("reconnect_wait", options.ReconnectWait);
        _ = Encode.Timeout("reconnect_wait_max", options.ReconnectWaitMax);
        if (options.CredentialsFile is not null && !File.Exists(options.CredentialsFile))
        {
            throw Encode.Invalid("credentials_file", $"there is no file '{options.CredentialsFile}'");
        }

        return options;
    }

    private static ILogger LoggerOf(ConnectOptions options) => (options.LoggerFactory ?? NullLoggerFactory.Instance).CreateLogger("Mq9");

    private static void Track(ConcurrentDictionary<Task, bool> set, Task task)
    {
        if (!task.IsCompleted)
        {
            set[task] = true;
            _ = task.ContinueWith(done => set.TryRemove(done, out _), TaskScheduler.Default);
        }
    }

    private void RefuseClosed(string what)
    {
        if (_closed || _closing is not null)
        {
            throw new Mq9ConnectionClosedException($"{what}: the client is closed");
        }
    }

    /// <summary>Carries an operation out: sends it, and again where that is allowed, and decodes the reply.</summary>
    private async Task<T> CarryOutAsync<T>(Call call, Func<System.Text.Json.JsonElement, T> decode, CancellationToken cancellationToken)
    {
        string name = call.Operation.Name;
        if (_closed && !IsInternal.Value)
        {
            throw new Mq9ConnectionClosedException($"{name}: the client is closed") { Operation = name };
        }

        TimeSpan timeout = (call.Timeout is { } own ? Encode.Timeout("timeout", own) : _timeout) + TimeSpan.FromMilliseconds(call.WaitMs);
        Task<T> attempts = AttemptsAsync(call, decode, timeout, cancellationToken);
        Track(_calls, attempts);
        try
        {
            return await attempts.ConfigureAwait(false);
        }
        catch (Mq9Exception error)
        {
            error.Operation = name;
            throw;
        }
    }

    private async Task<T> AttemptsAsync<T>(
        Call call, Func<System.Text.Json.JsonElement, T> decode, TimeSpan timeout, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        Operation operation = call.Operation;
        TimeSpan giveUp = operation.GiveUpMs > 0 ? TimeSpan.FromMilliseconds(operation.GiveUpMs) : TimeSpan.MaxValue;
        Func<ReadOnlyMemory<byte>, Task>? abandoned = call.LeasedTo is { } lease ? data => GiveBackLateAsync(lease.MailAddress, lease.GroupName, data) : null;
        double pause = RetryPauseMs;
        for (int attempt = 1; ; attempt++)
        {
            TimeSpan wait;
            try
            {
                ReadOnlyMemory<byte> data = await _connection.RequestAsync(call, timeout, abandoned, cancellationToken).ConfigureAwait(false);
                return Decode.Reply(operation.Name, data, decode, Logger);
            }
            catch (Mq9Exception error)
            {
                wait = TimeSpan.FromMilliseconds(pause * (1 + (Random.Shared.NextDouble() * Constants.RetryJitter)));
                if (!call.Repeatable
                    || attempt == Constants.RetryAttempts
                    || !operation.MayRetry(error)
                    || _connection.IsClosed
                    || Stopwatch.GetElapsedTime(start) + wait >= giveUp)
                {
                    throw;
                }

                Logger.LogDebug("mq9: {Operation}: attempt {Attempt} failed ({Failure}), trying again", operation.Name, attempt, error.Message);
            }

            await Task.Delay(wait, cancellationToken).ConfigureAwait(false);
            pause *= Constants.RetryPauseFactor;
            TimeSpan left = giveUp - Stopwatch.GetElapsedTime(start);
            timeout = timeout < left ? timeout : left;
        }
    }

    /// <summary>Gives back what the reply of a cancelled FETCH under a lease brought.</summary>
    private async Task GiveBackLateAsync(string mailAddress, string groupName, ReadOnlyMemory<byte> data)
    {
        IsInternal.Value = true;
        try
        {
            FetchResult result = Decode.Reply(Operations.MsgFetch.Name, data, Decoders.MsgFetchReply, Logger);
            if (!string.IsNullOrEmpty(result.LeaseId) && result.Messages.Count > 0)
            {
                long[] ids = [.. result.Messages.Select(message => message.MsgId)];
                await NackAsync(mailAddress, groupName, ids, new NackOptions { LeaseId = result.LeaseId }, CancellationToken.None).ConfigureAwait(false);
            }
        }
        catch (Mq9Exception error)
        {
            Logger.LogWarning("mq9: messages that a cancelled FETCH brought could not be given back: {Failure}", error.Message);
        }
    }

    private async Task CloseOnceAsync()
    {
        await Task.Yield();
        try
        {
            foreach (IPart part in _parts.Keys)
            {
                await part.CloseAsync().ConfigureAwait(false);
            }

            _closed = true;
            await EndedAsync([.. _calls.Keys, .. _background.Keys]).ConfigureAwait(false);
            if (_connection.IsListening)
            {
                // Cancelled FETCHes that still wait. The end of our own connection ends them at the broker too; on somebody
                // else's they have to be waited for. What they have brought until now is given back.
                await (_connection.IsInjected
                    ? _connection.SettleAsync(_timeout + TimeSpan.FromMilliseconds(Constants.ConsumeMaxWaitMs))
                    : _connection.FlushAsync(_timeout)).ConfigureAwait(false);
                await EndedAsync([.. _background.Keys]).ConfigureAwait(false);
            }
        }
        finally
        {
            _closed = true;
            await _connection.DisposeAsync().ConfigureAwait(false);
        }
    }

    private Task EndedAsync(Task[] tasks)
    {
        return tasks.Length == 0 ? Task.CompletedTask : Task.WhenAny(Task.WhenAll(tasks), Task.Delay(_timeout));
    }
}
