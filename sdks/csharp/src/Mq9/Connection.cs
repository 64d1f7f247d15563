using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Logging;
using NATS.Client.Core;

namespace Mq9;

/// <summary>The connection to a NATS server: it carries requests, and comes back by itself when it is lost.</summary>
/// <remarks>
/// The NATS client can reconnect too, but may send later what was published meanwhile: a FETCH whose caller has given up
/// long ago would then take messages that nobody handles. So every connection here is a fresh NATS client that does not
/// reconnect, and this class decides what happens in between: a request waits for the connection as long as its timeout
/// allows, and if that runs out, nothing was sent; a request that was sent when the connection broke fails at once; a
/// cancelled request is forgotten, but where its reply may bring messages under a lease, that reply is still listened for.
/// </remarks>
internal sealed class Connection : IConnection
{
    private const int HeaderLine = 12; // NATS/1.0, and the two line ends around the headers
    private const double Jitter = 0.5;
    private static readonly TimeSpan StateCheck = TimeSpan.FromMilliseconds(50);

    private readonly ConnectOptions _options;
    private readonly ILogger _logger;
    private readonly List<string> _servers;
    private readonly INatsConnection? _injected;
    private readonly CancellationTokenSource _closing = new();
    private readonly ConcurrentDictionary<Task, bool> _listening = new();
    private readonly object _gate = new();
    private TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile NatsLink? _link;
    private volatile bool _closed;
    private volatile string? _url;
    private Task _supervisor = Task.CompletedTask;

    public Connection(List<string> servers, ConnectOptions options, ILogger logger)
    {
        _servers = servers;
        _options = options;
        _logger = logger;
    }

    public Connection(INatsConnection injected, ConnectOptions options, ILogger logger)
        : this([], options, logger)
    {
        _injected = injected;
    }

    public bool IsClosed => _closed;

    public bool IsConnected => !_closed && _link is { IsOpen: true };

    public string? Url => IsConnected ? _url : null;

    public bool IsInjected => _injected is not null;

    public bool IsListening => !_listening.IsEmpty;

    /// <summary>Connects to the first server that can be reached.</summary>
    /// <exception cref="Mq9ConnectionClosedException">There is none; with code unauthorized if one refused the credentials.</exception>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        if (_injected is null)
        {
            await ConnectAsync(cancellationToken).ConfigureAwait(false);
            _supervisor = SuperviseAsync();
            return;
        }

        try
        {
            await _injected.ConnectAsync().AsTask().WaitAsync(_options.ConnectTimeout, cancellationToken).ConfigureAwait(false);
            NatsLink link = new(_injected, isOwned: false);
            await link.OpenAsync(cancellationToken).ConfigureAwait(false);
            Attach(link, _injected.Opts.Url);
        }
        catch (Exception error) when (IsConnectFailure(error, cancellationToken))
        {
            throw new Mq9ConnectionClosedException($"the NATS connection that was given does not work: {Why(error)}", CodeOf(error), inner: error);
        }
    }

    public async Task<ReadOnlyMemory<byte>> RequestAsync(
        Call call, TimeSpan timeout, Func<ReadOnlyMemory<byte>, Task>? abandoned, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        long start = Stopwatch.GetTimestamp();
        NatsLink link = await ConnectedAsync(call, timeout, start, cancellationToken).ConfigureAwait(false);
        RefuseTooLarge(call, link);
        NatsLink.PendingReply? pending = null;
        bool listensOn = false;
        try
        {
            using (CancellationTokenSource sending = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken))
            {
                sending.CancelAfter(Left(timeout, start));
                pending = await link.SendAsync(call, sending.Token).ConfigureAwait(false);
            }

            return await pending.Reply.WaitAsync(Left(timeout, start), cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            if (pending is not null && abandoned is not null)
            {
                listensOn = true;
                ListenOn(pending, Left(timeout, start), abandoned);
            }

            throw;
        }
        catch (Exception error) when (error is TimeoutException || (error is OperationCanceledException && Left(timeout, start) <= TimeSpan.FromMilliseconds(1)))
        {
            throw new Mq9TimeoutException($"{call.Operation.Name}: no reply within {Seconds(timeout)} s", inner: error);
        }
        catch (Exception error) when (error is NatsException or ObjectDisposedException or IOException or OperationCanceledException)
        {
            throw new Mq9ConnectionClosedException($"{call.Operation.Name}: {Why(error)}", inner: error);
        }
        finally
        {
            if (!listensOn)
            {
                pending?.Forget();
            }
        }
    }

    public async Task FlushAsync(TimeSpan timeout)
    {
        if (_link is not { IsOpen: true } link)
        {
            return;
        }

        try
        {
            await link.Nats.PingAsync(CancellationToken.None).AsTask().WaitAsync(timeout).ConfigureAwait(false);
        }
        catch (Exception error) when (error is NatsException or TimeoutException or ObjectDisposedException or IOException or OperationCanceledException)
        {
            _logger.LogDebug(error, "mq9: the connection broke while it was flushed");
        }
    }

    public async Task SettleAsync(TimeSpan timeout)
    {
        await Task.WhenAny(Task.WhenAll(_listening.Keys), Task.Delay(timeout, _closing.Token)).ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        lock (_gate)
        {
            if (_closed)
            {
                return;
            }

            _closed = true;
        }

        await _closing.CancelAsync().ConfigureAwait(false);
        _ready.TrySetResult();
        await _supervisor.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_link is { } link)
        {
            await link.DisposeAsync().ConfigureAwait(false);
        }

        await Task.WhenAll(_listening.Keys).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _closing.Dispose();
    }

    private static TimeSpan Left(TimeSpan timeout, long start)
    {
        TimeSpan left = timeout - Stopwatch.GetElapsedTime(start);
        return left > TimeSpan.Zero ? left : TimeSpan.Zero;
    }

    private static string Seconds(TimeSpan time) => time.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture);

    private static void RefuseTooLarge(Call call, NatsLink link)
    {
        int size = call.Body.Length;
        if (call.Headers is { Count: > 0 })
        {
            size += HeaderLine + call.Headers.Sum(header => Encoding.UTF8.GetByteCount(header.Key) + Encoding.UTF8.GetByteCount(header.Value) + 4);
        }

        if (link.Nats.ServerInfo is { MaxPayload: > 0 } server && size > server.MaxPayload)
        {
            throw new Mq9InvalidArgumentException(
                $"payload: {size} bytes with its headers, the server takes at most {server.MaxPayload}", ErrorCode.PayloadTooLarge, "payload");
        }
    }

    private static bool IsConnectFailure(Exception error, CancellationToken cancellationToken)
    {
        return error is NatsException or TimeoutException or ObjectDisposedException or IOException or System.Net.Sockets.SocketException
            or System.Security.Authentication.AuthenticationException or UriFormatException
            || (error is OperationCanceledException && !cancellationToken.IsCancellationRequested);
    }

    private static string Why(Exception error)
    {
        Exception inner = error;
        while (inner.InnerException is not null)
        {
            inner = inner.InnerException;
        }

        return inner switch
        {
            TimeoutException => "no answer in time",
            ObjectDisposedException => "the NATS connection is closed",
            OperationCanceledException => "the connection broke",
            _ => ReferenceEquals(inner, error) ? error.Message : $"{error.Message}: {inner.Message}",
        };
    }

    private static ErrorCode? CodeOf(Exception? error)
    {
        for (; error is not null; error = error.InnerException)
        {
            if (error is NatsServerException { IsAuthError: true }
                || error.Message.Contains("authoriz", StringComparison.OrdinalIgnoreCase)
                || error.Message.Contains("authentication", StringComparison.OrdinalIgnoreCase))
            {
                return ErrorCode.Unauthorized;
            }
        }

        return null;
    }

    private void ListenOn(NatsLink.PendingReply pending, TimeSpan left, Func<ReadOnlyMemory<byte>, Task> abandoned)
    {
        Task listening = ListenAsync();
        _listening[listening] = true;
        _ = listening.ContinueWith(task => _listening.TryRemove(task, out _), TaskScheduler.Default);

        async Task ListenAsync()
        {
            // The caller is to go on at once, whatever the reply brings.
            await Task.Yield();
            try
            {
                ReadOnlyMemory<byte> data = await pending.Reply.WaitAsync(left).ConfigureAwait(false);
                pending.Forget();
                await abandoned(data).ConfigureAwait(false);
            }
            catch (Exception error) when (error is TimeoutException or Mq9Exception)
            {
                _logger.LogDebug(error, "mq9: a cancelled request brought nothing");
            }
            finally
            {
                pending.Forget();
            }
        }
    }

    private async ValueTask<NatsLink> ConnectedAsync(Call call, TimeSpan timeout, long start, CancellationToken cancellationToken)
    {
        Task injectedConnects = Task.CompletedTask;
        while (!_closed)
        {
            Task ready;
            lock (_gate)
            {
                ready = _ready.Task;
            }

            if (_link is { IsOpen: true } link)
            {
                return link;
            }

            if (_injected is not null)
            {
                // It says in this way only that its owner has closed it.
                injectedConnects = injectedConnects.IsCompleted ? _injected.ConnectAsync().AsTask() : injectedConnects;
                if (injectedConnects.Exception?.InnerException is ObjectDisposedException disposed)
                {
                    throw new Mq9ConnectionClosedException($"{call.Operation.Name}: the NATS connection is closed", inner: disposed);
                }
            }

            TimeSpan left = Left(timeout, start);
            if (left == TimeSpan.Zero)
            {
                throw new Mq9TimeoutException($"{call.Operation.Name}: not connected to a server for {Seconds(timeout)} s; nothing was sent");
            }

            // The state of a connection changes a little before, or after, it is told.
            TimeSpan pause = ready.IsCompleted && left > StateCheck ? StateCheck : left;
            Task until = ready.IsCompleted ? Task.Delay(pause, cancellationToken) : ready.WaitAsync(pause, cancellationToken);
            await until.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            cancellationToken.ThrowIfCancellationRequested();
        }

        throw new Mq9ConnectionClosedException($"{call.Operation.Name}: the client is closed");
    }

    private void Attach(NatsLink link, string url)
    {
        lock (_gate)
        {
            _link = link;
            _url = ServerList.Shown(url);
            _ready.TrySetResult();
        }
    }

    private async Task ConnectAsync(CancellationToken cancellationToken)
    {
        List<string> failures = [];
        ErrorCode? code = null;
        Exception? last = null;
        for (int index = 0; index < _servers.Count; index++)
        {
            string url = _servers[index];
            try
            {
                NatsLink link = await ConnectToAsync(url, cancellationToken).ConfigureAwait(false);
                List<string> before = _servers.GetRange(0, index);
                _servers.RemoveRange(0, index);
                _servers.AddRange(before);
                AddDiscovered(link, url);
                Attach(link, url);
                return;
            }
            catch (Exception error) when (IsConnectFailure(error, cancellationToken))
            {
                code ??= CodeOf(error);
                failures.Add($"{ServerList.Shown(url)}: {Why(error)}");
                last = error;
            }
        }

        throw new Mq9ConnectionClosedException("could not connect to " + string.Join("; ", failures), code, inner: last);
    }

    private async Task<NatsLink> ConnectToAsync(string url, CancellationToken cancellationToken)
    {
        NatsTlsOpts tls = _options.Tls ?? NatsTlsOpts.Default;
        NatsOpts options = NatsOpts.Default with
        {
            Url = url,
            Name = _options.Name ?? "mq9",
            AuthOpts = NatsAuthOpts.Default with
            {
                Username = _options.User,
                Password = _options.Password,
                Token = _options.Token,
                CredsFile = _options.CredentialsFile,
            },
            // Who gives TLS settings insists on TLS: no password goes out in clear text.
            TlsOpts = _options.Tls is not null && tls.Mode == TlsMode.Auto ? tls with { Mode = TlsMode.Require } : tls,
            ConnectTimeout = _options.ConnectTimeout,
            // Values of our own are ASCII; the default would put question marks into what others sent.
            HeaderEncoding = Encoding.UTF8,
            RetryOnInitialConnect = false,
        };
        NatsConnection nats = new(options);
        NatsLink link = new(nats, isOwned: true);
        try
        {
            await nats.ConnectAsync().AsTask().WaitAsync(_options.ConnectTimeout, cancellationToken).ConfigureAwait(false);
            nats.OnConnectingAsync = static _ => throw new NatsException("a connection that was lost is replaced");
            await link.OpenAsync(cancellationToken).ConfigureAwait(false);
            return link;
        }
        catch
        {
            await link.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private void AddDiscovered(NatsLink link, string url)
    {
        foreach (string found in link.Nats.ServerInfo?.ClientConnectUrls ?? [])
        {
            string server = ServerList.Beside(url, found);
            if (!_servers.Contains(server, StringComparer.Ordinal))
            {
                _servers.Add(server);
            }
        }
    }

    private async Task SuperviseAsync()
    {
        while (!_closed && _link is { } link)
        {
            await link.Lost.WaitAsync(_closing.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (_closed)
            {
                return;
            }

            lock (_gate)
            {
                _ready = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }

            _logger.LogInformation("mq9: connection lost, reconnecting");
            await link.DisposeAsync().ConfigureAwait(false);
            await ReconnectAsync().ConfigureAwait(false);
        }
    }

    private async Task ReconnectAsync()
    {
        TimeSpan wait = _options.ReconnectWait;
        while (!_closed)
        {
            TimeSpan pause = wait * (1 + (Random.Shared.NextDouble() * Jitter));
            pause = pause < _options.ReconnectWaitMax ? pause : _options.ReconnectWaitMax;
            await Task.Delay(pause, _closing.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            wait = wait * 2 < _options.ReconnectWaitMax ? wait * 2 : _options.ReconnectWaitMax;
            if (_closed)
            {
                return;
            }

            // The server that was just lost comes last.
            _servers.Add(_servers[0]);
            _servers.RemoveAt(0);
            try
            {
                await ConnectAsync(_closing.Token).ConfigureAwait(false);
                _logger.LogInformation("mq9: connected again to {Url}", Url);
                return;
            }
            catch (Exception error) when (error is not OperationCanceledException)
            {
                // For ever: whatever went wrong, the next attempt may succeed.
                _logger.LogInformation("mq9: {Failure}", error.Message);
            }
        }
    }
}
