using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;

namespace Mq9;

/// <summary>Fetch under a lease, hand over, renew meanwhile, acknowledge or give back.</summary>
/// <remarks>
/// One batch at a time. Each message of it is waiting, then running, then settled; a lease covers all that are not settled:
/// <code>
/// FETCH -> waiting -> running -> handler returned -> ACK  -> settled
///             |          `-----> handler failed  -> error hook, NACK with a growing delay -> settled
///             `-> stopped, cancelled -> NACK -> settled
/// </code>
/// </remarks>
[System.Diagnostics.CodeAnalysis.SuppressMessage("Design", "CA1001", Justification = "The source holds nothing that needs to be freed: it has no timer.")]
internal sealed class ConsumeLoop : Mq9Client.IPart
{
    /// <summary>The consumer whose handler runs here: stopping it from there must not wait for itself.</summary>
    private static readonly AsyncLocal<ConsumeLoop?> Inside = new();

    private readonly Mq9Client _client;
    private readonly ConsumeSettings _settings;
    private readonly Func<Mq9Message, CancellationToken, Task>? _handler;
    private readonly CancellationToken _cancelled;
    private readonly CancellationTokenSource _stopping = new();
    private readonly CancellationTokenSource _ending;
    private readonly CancellationToken _ended;
    private readonly object _gate = new();
    private readonly Queue<Mq9Message> _waiting = new();
    private readonly Dictionary<long, Mq9Message> _unsettled = [];
    private FetchOptions _fetch;
    private Task? _running;
    private long _delivered;
    private long _acknowledged;
    private long _failed;
    private long _givenBack;
    private long _failedAcks;
    private long _failedFetches;

    public ConsumeLoop(
        Mq9Client client, ConsumeSettings settings, Func<Mq9Message, CancellationToken, Task>? handler, CancellationToken cancellationToken)
    {
        _client = client;
        _settings = settings;
        _handler = handler;
        _cancelled = cancellationToken;
        _ending = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token, cancellationToken);
        _ended = _ending.Token;
        _fetch = Completed(settings.Start);
        client.Add(this);
    }

    public long Delivered => Interlocked.Read(ref _delivered);

    public long Acknowledged => Interlocked.Read(ref _acknowledged);

    public long Failed => Interlocked.Read(ref _failed);

    public long GivenBack => Interlocked.Read(ref _givenBack);

    public long FailedAcks => Interlocked.Read(ref _failedAcks);

    public long FailedFetches => Interlocked.Read(ref _failedFetches);

    private bool IsStopping => _stopping.IsCancellationRequested;

    /// <summary>How long a message stays hidden after its handler failed, in milliseconds.</summary>
    public static long NackDelayMs(long deliveryCount)
    {
        double factor = Math.Pow(Constants.ConsumeNackDelayFactor, Math.Min(Math.Max(deliveryCount, 1) - 1, 62));
        return (long)Math.Min(Constants.ConsumeNackDelayMs * factor, Constants.ConsumeNackDelayMaxMs);
    }

    /// <summary>The loop of <c>await foreach</c>.</summary>
    public static async IAsyncEnumerable<Mq9Message> IterateAsync(
        Mq9Client client, ConsumeSettings settings, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ConsumeLoop loop = new(client, settings, null, cancellationToken);
        Renewal? renewal = null;
        try
        {
            while (await loop.NextBatchAsync().ConfigureAwait(false))
            {
                renewal = new Renewal(loop);
                while (!loop.IsStopping && loop.TryTake(out Mq9Message? message))
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    Interlocked.Increment(ref loop._delivered);
                    yield return message;

                    // The loop has come back for more, so its body has ended well.
                    if (settings.AutoAck)
                    {
                        await loop.AcknowledgeAsync(message).ConfigureAwait(false);
                    }

                    loop.Settle(message);
                }

                await loop.GiveBackWaitingAsync().ConfigureAwait(false);
                await renewal.EndAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            if (renewal is not null)
            {
                await renewal.EndAsync().ConfigureAwait(false);
            }

            if (cancellationToken.IsCancellationRequested)
            {
                loop.GiveBackInBackground();
            }
            else
            {
                await loop.GiveBackAsync(loop.Held(), 0).ConfigureAwait(false);
            }

            loop.Finish();
        }
    }

    /// <summary>Runs the form with a handler.</summary>
    public Task Start()
    {
        // The caller's handler, if it starts a consumer itself, is none of this consumer's.
        ConsumeLoop? outer = Inside.Value;
        Inside.Value = null;
        _running = Task.Run(RunAsync, CancellationToken.None);
        Inside.Value = outer;
        return _running;
    }

    public async Task StopAsync()
    {
        await RequestStopAsync().ConfigureAwait(false);
        if (Inside.Value != this && _running is not null)
        {
            await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>The client's end: like stop, but without waiting for a loop's body, which may be the caller.</summary>
    async Task Mq9Client.IPart.CloseAsync()
    {
        if (_running is not null)
        {
            await StopAsync().ConfigureAwait(false);
        }
        else
        {
            await RequestStopAsync().ConfigureAwait(false);
            await GiveBackWaitingAsync().ConfigureAwait(false);
        }
    }

    private async Task RequestStopAsync()
    {
        try
        {
            await _stopping.CancelAsync().ConfigureAwait(false);
        }
        catch (ObjectDisposedException)
        {
            // It has ended already.
        }
    }

    private FetchOptions Completed(FetchOptions start)
    {
        return start with
        {
            GroupName = _settings.GroupName,
            NumMsgs = Math.Max(_settings.NumMsgs, _settings.Concurrency),
            MaxWaitMs = _settings.MaxWaitMs,
            LeaseMs = _settings.LeaseMs,
            Timeout = _settings.Timeout,
        };
    }

    private async Task RunAsync()
    {
        try
        {
            while (await NextBatchAsync().ConfigureAwait(false))
            {
                Renewal renewal = new(this);
                try
                {
                    await HandleAsync().ConfigureAwait(false);
                    _cancelled.ThrowIfCancellationRequested();
                    await GiveBackWaitingAsync().ConfigureAwait(false);
                }
                finally
                {
                    await renewal.EndAsync().ConfigureAwait(false);
                }
            }
        }
        finally
        {
            GiveBackInBackground();
            Finish();
        }
    }

    private async Task HandleAsync()
    {
        int count;
        lock (_gate)
        {
            count = (int)Math.Min(_settings.Concurrency, _waiting.Count);
        }

        Task[] workers = [.. Enumerable.Range(0, count).Select(_ => WorkAsync())];
        await Task.WhenAll(workers).ConfigureAwait(false);
    }

    private async Task WorkAsync()
    {
        // The linked token lags a little behind the two that it is made of.
        while (!IsStopping && !_cancelled.IsCancellationRequested && TryTake(out Mq9Message? message))
        {
            Exception? failure = await RunHandlerAsync(message).ConfigureAwait(false);
            if (failure is not null && _cancelled.IsCancellationRequested)
            {
                // Given back with all that is still in hand.
                return;
            }

            if (failure is null)
            {
                if (_settings.AutoAck && _cancelled.IsCancellationRequested)
                {
                    // It finished in spite of the cancellation: its work is not done again, and nobody waits for the ACK.
                    _client.RunInBackground(() => AcknowledgeAsync(message));
                }
                else if (_settings.AutoAck)
                {
                    await AcknowledgeAsync(message).ConfigureAwait(false);
                }

                Settle(message);
            }
            else
            {
                Interlocked.Increment(ref _failed);
                await ReportAsync(failure, message).ConfigureAwait(false);
                await GiveBackAsync([message], NackDelayMs(message.DeliveryCount ?? 1)).ConfigureAwait(false);
            }
        }
    }

    private async Task<Exception?> RunHandlerAsync(Mq9Message message)
    {
        Interlocked.Increment(ref _delivered);
        Inside.Value = this;
        try
        {
            await _handler!(message, _cancelled).ConfigureAwait(false);
            return null;
        }
#pragma warning disable CA1031 // Whatever a handler throws, its message has failed.
        catch (Exception error)
#pragma warning restore CA1031
        {
            return error;
        }
    }

    /// <summary>Waits for messages and puts them in line; false if it was stopped.</summary>
    private async Task<bool> NextBatchAsync()
    {
        double pauseMs = Constants.ConsumeFetchPauseMs;
        while (true)
        {
            _cancelled.ThrowIfCancellationRequested();
            if (IsStopping)
            {
                return false;
            }

            try
            {
                await FetchAsync().ConfigureAwait(false);
                pauseMs = Constants.ConsumeFetchPauseMs;
            }
            catch (OperationCanceledException) when (_ended.IsCancellationRequested)
            {
                // What a cancelled FETCH brings is given back by the client.
                continue;
            }
            catch (Mq9Exception error)
            {
                Interlocked.Increment(ref _failedFetches);
                if (_client.IsClosed)
                {
                    return false;
                }

                await ReportAsync(error, null).ConfigureAwait(false);
                double wait = pauseMs * (1 + (Random.Shared.NextDouble() * Constants.ConsumeFetchPauseJitter));
                await Task.Delay(TimeSpan.FromMilliseconds(wait), _ended).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                pauseMs = Math.Min(pauseMs * Constants.ConsumeFetchPauseFactor, Constants.ConsumeFetchPauseMaxMs);
            }

            lock (_gate)
            {
                if (_waiting.Count > 0)
                {
                    return true;
                }
            }
        }
    }

    private async Task FetchAsync()
    {
        FetchResult result = await _client.FetchAsync(_settings.MailAddress, _fetch, _ended).ConfigureAwait(false);
        _fetch = Completed(new FetchOptions());
        lock (_gate)
        {
            foreach (Mq9Message message in result.Messages)
            {
                message.Delivery = new Delivery(
                    _client, _settings.MailAddress, _settings.GroupName, result.LeaseId ?? "", _settings.LeaseMs, _settings.Timeout);
                _unsettled[message.MsgId] = message;
                _waiting.Enqueue(message);
            }
        }
    }

    private bool TryTake([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out Mq9Message? message)
    {
        lock (_gate)
        {
            return _waiting.TryDequeue(out message);
        }
    }

    private void Settle(Mq9Message message)
    {
        lock (_gate)
        {
            _unsettled.Remove(message.MsgId);
        }
    }

    private List<Mq9Message> Held()
    {
        lock (_gate)
        {
            return [.. _unsettled.Values.Where(message => !message.Delivery!.Settled)];
        }
    }

    private async Task AcknowledgeAsync(Mq9Message message)
    {
        if (message.Delivery!.Settled)
        {
            return;
        }

        try
        {
            await message.AckAsync(CancellationToken.None).ConfigureAwait(false);
            Interlocked.Increment(ref _acknowledged);
        }
        catch (Mq9Exception error)
        {
            Interlocked.Increment(ref _failedAcks);
            await ReportAsync(error, message).ConfigureAwait(false);
        }
    }

    /// <summary>Gives messages of one batch back that are not settled; what fails comes again when its lease is over.</summary>
    private async Task GiveBackAsync(List<Mq9Message> messages, long delayMs)
    {
        lock (_gate)
        {
            foreach (Mq9Message message in messages)
            {
                _unsettled.Remove(message.MsgId);
            }
        }

        List<Mq9Message> held = messages.FindAll(message => !message.Delivery!.Settled);
        if (held.Count == 0)
        {
            return;
        }

        try
        {
            NackOptions options = new() { LeaseId = held[0].Delivery!.LeaseId, DelayMs = delayMs, Timeout = _settings.Timeout };
            long[] ids = [.. held.Select(message => message.MsgId)];
            await _client.NackAsync(_settings.MailAddress, _settings.GroupName, ids, options, CancellationToken.None).ConfigureAwait(false);
            Interlocked.Add(ref _givenBack, held.Count);
        }
        catch (Mq9Exception error)
        {
            await ReportAsync(error, held.Count == 1 ? held[0] : null).ConfigureAwait(false);
        }
    }

    /// <summary>After stop: gives back what was not started.</summary>
    private Task GiveBackWaitingAsync()
    {
        List<Mq9Message> messages;
        lock (_gate)
        {
            messages = [.. _waiting];
            _waiting.Clear();
        }

        return GiveBackAsync(messages, 0);
    }

    /// <summary>After a cancellation: gives everything back that is still in hand.</summary>
    private void GiveBackInBackground()
    {
        List<Mq9Message> held = Held();
        if (held.Count > 0)
        {
            _client.RunInBackground(() => GiveBackAsync(held, 0));
        }
    }

    /// <summary>Runs the error hook, or logs where there is none; a hook that fails is logged too.</summary>
    private async Task ReportAsync(Exception error, Mq9Message? message)
    {
        if (_settings.OnError is null)
        {
            _client.Logger.LogWarning(
                error is Mq9Exception ? null : error,
                "mq9: {MailAddress}, group {GroupName}, message {MsgId}: {Failure}",
                _settings.MailAddress,
                _settings.GroupName,
                message?.MsgId,
                error.Message);
            return;
        }

        Inside.Value = this;
        try
        {
            await _settings.OnError(error, message).ConfigureAwait(false);
        }
#pragma warning disable CA1031 // The loop lives on, whatever the hook throws.
        catch (Exception failure)
#pragma warning restore CA1031
        {
            _client.Logger.LogError(
                failure, "mq9: {MailAddress}, group {GroupName}: the error hook failed", _settings.MailAddress, _settings.GroupName);
        }
    }

    private void Finish()
    {
        _client.Remove(this);
        _ending.Dispose();
    }

    /// <summary>Keeps everything that is not settled hidden from the rest of the group, until it is ended.</summary>
    private sealed class Renewal
    {
        private readonly ConsumeLoop _loop;
        private readonly CancellationTokenSource _end;
        private readonly Task _renewing;

        public Renewal(ConsumeLoop loop)
        {
            _loop = loop;
            _end = CancellationTokenSource.CreateLinkedTokenSource(loop._cancelled);
            _renewing = RenewAsync(_end.Token);
        }

        public async Task EndAsync()
        {
            try
            {
                await _end.CancelAsync().ConfigureAwait(false);
                await _renewing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                _end.Dispose();
            }
            catch (ObjectDisposedException)
            {
                // It was ended before.
            }
        }

        private async Task RenewAsync(CancellationToken cancellationToken)
        {
            ConsumeSettings settings = _loop._settings;
            while (true)
            {
                await Task.Delay(TimeSpan.FromMilliseconds((double)settings.LeaseMs / Constants.ConsumeRenewDivisor), cancellationToken).ConfigureAwait(false);
                foreach (IGrouping<string, Mq9Message> lease in _loop.Held().GroupBy(message => message.Delivery!.LeaseId))
                {
                    try
                    {
                        long[] ids = [.. lease.Select(message => message.MsgId)];
                        RenewOptions options = new() { LeaseId = lease.Key };
                        await _loop._client.RenewAsync(
                            settings.MailAddress, settings.GroupName, ids, settings.LeaseMs, options, cancellationToken).ConfigureAwait(false);
                    }
                    catch (Mq9Exception error)
                    {
                        await _loop.ReportAsync(error, null).ConfigureAwait(false);
                    }
                }
            }
        }
    }
}
