using System.Collections.Concurrent;
using System.Diagnostics;
using System.Security.Cryptography;
using NATS.Client.Core;
using Xunit;

namespace Mq9.Tests;

/// <summary>The client against the reference broker.</summary>
public sealed class BrokerTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    [Fact]
    public async Task PayloadsComeBackBitForBit()
    {
        await using Broker broker = await Broker.StartAsync();
        await using Mq9Client client = await broker.ConnectAsync();
        string inbox = await client.MailboxCreateAsync();
        byte[] largest = RandomNumberGenerator.GetBytes(1 << 20);
        await client.SendAsync(inbox, largest);
        await client.SendAsync(inbox, "héllo", new SendOptions { Priority = Priority.Critical, Headers = new Dictionary<string, string> { ["x-note"] = "n" } });
        FetchResult result = await client.FetchAsync(inbox, new FetchOptions { Deliver = Deliver.Earliest });
        Assert.Equal("héllo", result.Messages[0].Text());
        Assert.Equal("n", result.Messages[0].Headers!["x-note"][0]);
        IReadOnlyList<Mq9Message> first = await client.QueryAsync(inbox, new QueryOptions { FromId = 0, Limit = 1 });
        Assert.Equal(largest, first.Single().Payload.ToArray());
        Mq9InvalidArgumentException error = await Assert.ThrowsAsync<Mq9InvalidArgumentException>(
            () => client.SendAsync(inbox, new byte[(8 << 20) + 1]));
        Assert.Equal(ErrorCode.PayloadTooLarge, error.Code);
    }

    [Fact]
    public async Task TenThousandMessagesComeInOrder()
    {
        await using Broker broker = await Broker.StartAsync();
        await using Mq9Client client = await broker.ConnectAsync();
        string inbox = await client.MailboxCreateAsync();
        foreach (int[] some in Enumerable.Range(0, 10_000).Chunk(500))
        {
            await Task.WhenAll(some.Select(number => client.SendAsync(inbox, number.ToString(System.Globalization.CultureInfo.InvariantCulture))));
        }

        List<long> seen = [];
        TaskCompletionSource done = new();
        await using Mq9Consumer consumer = client.Consume(inbox, "g", (message, _) =>
        {
            seen.Add(message.MsgId);
            if (seen.Count == 10_000)
            {
                done.SetResult();
            }

            return Task.CompletedTask;
        }, new ConsumeOptions { NumMsgs = 1000, LeaseMs = 600_000, AutoAck = false, Deliver = Deliver.Earliest });
        await done.Task.WaitAsync(Patience);
        Assert.Equal(Enumerable.Range(0, 10_000).Select(id => (long)id), seen);
    }

    [Fact]
    public async Task TheNextServerIsUsedWhenOneIsLost()
    {
        await using Broker second = await Broker.StartAsync();
        Broker first = await Broker.StartAsync();
        await using Mq9Client client = await Mq9Client.ConnectAsync($"nats://127.0.0.1:1, {first.Url},{second.Url}");
        Assert.Equal(first.Url, client.ConnectedUrl);
        await first.DisposeAsync();
        string inbox = await EventuallyAsync(() => client.MailboxCreateAsync("second.box"));
        Assert.Equal("second.box", inbox);
        Assert.Equal(second.Url, client.ConnectedUrl);
    }

    [Fact]
    public async Task ConsumingGoesOnAfterARestartOfTheBroker()
    {
        Broker broker = await Broker.StartAsync();
        int port = new Uri(broker.Url).Port;
        await using Mq9Client client = await broker.ConnectAsync();
        await client.MailboxCreateAsync("a.b");
        TaskCompletionSource<string> seen = new();
        await using Mq9Consumer consumer = client.Consume("a.b", "g", (message, _) =>
        {
            seen.TrySetResult(message.Text());
            return Task.CompletedTask;
        }, new ConsumeOptions { Deliver = Deliver.Earliest, OnError = (_, _) => Task.CompletedTask });
        await broker.DisposeAsync();
        await using Broker again = await Broker.StartAsync(port);
        await EventuallyAsync(() => client.MailboxCreateAsync("a.b"));
        await client.SendAsync("a.b", "after");
        Assert.Equal("after", await seen.Task.WaitAsync(Patience));
        // While there is a broker that answers its ACK.
        await consumer.StopAsync();
    }

    [Fact]
    public async Task CallsThatMeetABreakingConnectionDoNotWaitForTheirTimeout()
    {
        Broker broker = await Broker.StartAsync();
        int port = new Uri(broker.Url).Port;
        await using Mq9Client client = await broker.ConnectAsync();
        using CancellationTokenSource enough = new();
        ConcurrentBag<ErrorKind> kinds = [];
        Task[] callers = [.. Enumerable.Range(0, 8).Select(_ => Task.Run(async () =>
        {
            while (!enough.IsCancellationRequested)
            {
                try
                {
                    await client.MailboxCreateAsync();
                    await Task.Delay(1);
                }
                catch (Mq9Exception error)
                {
                    kinds.Add(error.Kind);
                }
            }
        }))];
        await EventuallyAsync(() => client.MailboxCreateAsync());
        await broker.DisposeAsync();
        await using Broker again = await Broker.StartAsync(port);
        await EventuallyAsync(() => client.MailboxCreateAsync());
        await enough.CancelAsync();
        await Task.WhenAll(callers).WaitAsync(Patience);
        Assert.Equal([ErrorKind.ConnectionClosed], kinds.Distinct());
    }

    [Fact]
    public async Task ACancelledFetchEndsAtOnceAndLeavesNothingLeased()
    {
        await using Broker broker = await Broker.StartAsync();
        await using Mq9Client client = await broker.ConnectAsync();
        string inbox = await client.MailboxCreateAsync();
        using CancellationTokenSource cancel = new();
        Task<FetchResult> fetch = client.FetchAsync(inbox, new FetchOptions { GroupName = "g", LeaseMs = 60_000, MaxWaitMs = 60_000 }, cancel.Token);
        await ConsumeTests.UntilAsync(() => client.MailboxInfoAsync(inbox).GetAwaiter().GetResult().Groups.Count == 1);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => fetch.WaitAsync(Patience));
        await client.SendAsync(inbox, "x");
        FetchResult other = await client.FetchAsync(inbox, new FetchOptions { GroupName = "g", LeaseMs = 1000, MaxWaitMs = 30_000 });
        Assert.Equal("x", other.Messages.Single().Text());
    }

    [Fact]
    public async Task AGivenConnectionStaysOpen()
    {
        await using Broker broker = await Broker.StartAsync();
        await using NatsConnection nats = new(NatsOpts.Default with { Url = broker.Url });
        Mq9Client client = await Mq9Client.ConnectAsync(nats);
        await client.MailboxCreateAsync("a.b");
        await client.CloseAsync();
        await client.CloseAsync();
        await Assert.ThrowsAsync<Mq9ConnectionClosedException>(() => client.MailboxInfoAsync("a.b"));
        await nats.PingAsync(TestContext.Current.CancellationToken);
        Assert.Equal(NatsConnectionState.Open, nats.ConnectionState);
        Mq9Client second = await Mq9Client.ConnectAsync(nats);
        await nats.DisposeAsync();
        await Assert.ThrowsAsync<Mq9ConnectionClosedException>(() => second.MailboxCreateAsync(options: new MailboxCreateOptions { Timeout = Patience }));
        await second.CloseAsync();
    }

    [Fact]
    public async Task NothingIsSentLaterThatWasCalledWhileDisconnected()
    {
        Broker broker = await Broker.StartAsync();
        int port = new Uri(broker.Url).Port;
        await using Mq9Client client = await broker.ConnectAsync();
        await broker.DisposeAsync();
        await ConsumeTests.UntilAsync(() => !client.IsConnected);
        await Assert.ThrowsAsync<Mq9TimeoutException>(
            () => client.MailboxCreateAsync("late.box", new MailboxCreateOptions { Timeout = TimeSpan.FromMilliseconds(100) }));
        await using Broker again = await Broker.StartAsync(port);
        await EventuallyAsync(() => client.MailboxCreateAsync("other.box"));
        Mq9ServerException error = await Assert.ThrowsAsync<Mq9ServerException>(() => client.MailboxInfoAsync("late.box"));
        Assert.Equal(ErrorCode.MailboxNotFound, error.Code);
    }

    [Fact]
    public async Task NobodyThereIsKindConnectionClosed()
    {
        Mq9ConnectionClosedException error = await Assert.ThrowsAsync<Mq9ConnectionClosedException>(() => Mq9Client.ConnectAsync("nats://user:secret@127.0.0.1:1"));
        Assert.Equal(ErrorKind.ConnectionClosed, error.Kind);
        Assert.DoesNotContain("secret", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task TheAgentIsThereUntilItIsStopped()
    {
        await using Broker broker = await Broker.StartAsync();
        await using Mq9Client client = await broker.ConnectAsync();
        AgentKeepAlive agent = await client.AgentKeepAliveAsync("translator", new AgentRegisterOptions { Mailbox = "translator.inbox" });
        DiscoverResult found = await client.AgentDiscoverAsync();
        Assert.Equal("translator", found.Agents.Single().GetProperty("name").GetString());
        await agent.StopAsync();
        await agent.StopAsync();
        Assert.Empty((await client.AgentDiscoverAsync()).Agents);
    }

    private static async Task<T> EventuallyAsync<T>(Func<Task<T>> action)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return await action();
            }
            catch (Mq9Exception) when (Stopwatch.GetElapsedTime(start) < Patience)
            {
                await Task.Delay(50);
            }
        }
    }
}
