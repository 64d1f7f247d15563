using System.Text.RegularExpressions;
using Xunit;

namespace Mq9.Tests;

/// <summary>What a client leaves behind when it is closed: nothing.</summary>
public sealed partial class LeakTests
{
    [Fact]
    public async Task NothingStaysBehindWhenClientsAreClosed()
    {
        await using Broker broker = await Broker.StartAsync();
        List<WeakReference> made = [];
        for (int round = 0; round < 10; round++)
        {
            await UseAsync(broker, made);
        }

        using HttpClient http = new();
        await UntilAsync(async () => Connections().Match(await http.GetStringAsync(broker.Http + "/metrics")).Groups[1].Value == "0.0");
        // A task, timer or subscription that still runs would keep its client, consumer or keep-alive in memory.
        await UntilAsync(() =>
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            return Task.FromResult(made.TrueForAll(item => !item.IsAlive));
        });
        Assert.Equal(50, made.Count);
    }

    private static async Task UseAsync(Broker broker, List<WeakReference> made)
    {
        Mq9Client client = await broker.ConnectAsync();
        string inbox = await client.MailboxCreateAsync();
        await client.SendAsync(inbox, "x");
        TaskCompletionSource handled = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Func<Mq9Message, CancellationToken, Task> handler = (_, _) =>
        {
            handled.TrySetResult();
            return Task.CompletedTask;
        };
        Mq9Consumer consumer = client.Consume(inbox, "g", handler, new ConsumeOptions { Deliver = Deliver.Earliest });
        await handled.Task.WaitAsync(TimeSpan.FromSeconds(60));
        using CancellationTokenSource cancel = new();
        Mq9Consumer cancelled = client.Consume(inbox, "other", handler, cancellationToken: cancel.Token);
        await cancel.CancelAsync();
        AgentKeepAlive agent = await client.AgentKeepAliveAsync("agent");
        Task<FetchResult> waiting = client.FetchAsync(inbox, new FetchOptions { GroupName = "third", LeaseMs = 60_000, MaxWaitMs = 60_000 }, cancel.Token);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
        await client.CloseAsync();
        made.AddRange([new(client), new(consumer), new(cancelled), new(agent), new(handler)]);
    }

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        using CancellationTokenSource patience = new(TimeSpan.FromSeconds(60));
        while (!await condition())
        {
            await Task.Delay(20, patience.Token);
        }
    }

    [GeneratedRegex("^mq9_connections (.*)$", RegexOptions.Multiline)]
    private static partial Regex Connections();
}
