using Microsoft.Extensions.Logging;

namespace Mq9;

/// <summary>An agent that stays registered until it is stopped; made by <see cref="Mq9Client.AgentKeepAliveAsync"/>.</summary>
public sealed class AgentKeepAlive : IAsyncDisposable, Mq9Client.IPart
{
    private readonly Mq9Client _client;
    private readonly string _name;
    private readonly AgentRegisterOptions _options;
    private readonly CancellationTokenSource _stopping = new();
    private readonly object _gate = new();
    private Task _reporting = Task.CompletedTask;
    private Task? _stopped;

    internal AgentKeepAlive(Mq9Client client, string name, AgentRegisterOptions options)
    {
        _client = client;
        _name = name;
        _options = options;
    }

    /// <summary>Ends the reports and unregisters the agent; calling it again is fine.</summary>
    /// <exception cref="Mq9Exception">It could not be unregistered; it goes by itself when its ttl is over.</exception>
    public Task StopAsync()
    {
        lock (_gate)
        {
            return _stopped ??= StopOnceAsync();
        }
    }

    /// <summary>The same as <see cref="StopAsync"/>.</summary>
    public ValueTask DisposeAsync() => new(StopAsync());

    async Task Mq9Client.IPart.CloseAsync()
    {
        try
        {
            await StopAsync().ConfigureAwait(false);
        }
        catch (Mq9Exception error)
        {
            _client.Logger.LogWarning("mq9: agent {Name} could not be unregistered: {Failure}", _name, error.Message);
        }
    }

    internal async Task StartAsync(CancellationToken cancellationToken)
    {
        await _client.AgentRegisterAsync(_name, _options, cancellationToken).ConfigureAwait(false);
        _reporting = ReportAsync();
        _client.Add(this);
    }

    private async Task StopOnceAsync()
    {
        _client.Remove(this);
        await _stopping.CancelAsync().ConfigureAwait(false);
        await _reporting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stopping.Dispose();
        await _client.AgentUnregisterAsync(_name).ConfigureAwait(false);
    }

    private async Task ReportAsync()
    {
        while (true)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(Constants.AgentKeepAliveReportEveryMs), _stopping.Token).ConfigureAwait(false);
            try
            {
                try
                {
                    await _client.AgentReportAsync(_name, cancellationToken: _stopping.Token).ConfigureAwait(false);
                }
                catch (Mq9ServerException error) when (error.Code == ErrorCode.AgentNotFound)
                {
                    await _client.AgentRegisterAsync(_name, _options, _stopping.Token).ConfigureAwait(false);
                }
            }
            catch (Mq9Exception error)
            {
                _client.Logger.LogWarning("mq9: agent {Name} could not be reported, trying again later: {Failure}", _name, error.Message);
            }
        }
    }
}
