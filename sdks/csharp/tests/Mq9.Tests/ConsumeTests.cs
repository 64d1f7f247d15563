using System.Collections.Concurrent;
using Xunit;

namespace Mq9.Tests;

/// <summary>The consume loop against a mailbox by script.</summary>
public sealed class ConsumeTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task HandsOverInOrderAndAcknowledgesOneByOne()
    {
        FakeMailbox mailbox = new(25);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out FakeConnection connection);
        ConcurrentQueue<long> seen = new();
        Mq9Consumer consumer = client.Consume("a.b", "g", Keep(seen));
        await UntilAsync(() => mailbox.Confirmed.Count == 25);
        await consumer.StopAsync();
        Assert.Equal(Enumerable.Range(0, 25).Select(id => (long)id), seen);
        Assert.All(connection.Of("msg.ack"), call => Assert.NotNull(FakeConnection.Body(call)["msg_id"]));
        Assert.Equal(25, consumer.Acknowledged);
    }

    [Fact]
    public async Task AFailedMessageComesAgainAfterTheHookEvenIfThatFails()
    {
        FakeMailbox mailbox = new(5);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out FakeConnection connection);
        ConcurrentQueue<string> told = new();
        ConcurrentDictionary<long, int> counts = new();
        ConsumeOptions options = new()
        {
            OnError = (error, message) =>
            {
                told.Enqueue($"{error.Message} {message?.MsgId}");
                throw new InvalidOperationException("the hook fails too");
            },
        };
        await using Mq9Consumer consumer = client.Consume("a.b", "g", (message, _) =>
            message.MsgId == 3 && counts.AddOrUpdate(3, 1, (_, count) => count + 1) < 3 ? throw new InvalidOperationException("no") : Task.CompletedTask, options);
        await UntilAsync(() => mailbox.Confirmed.Count == 5);
        Assert.Equal(["no 3", "no 3"], told);
        Assert.Equal([1000L, 2000L], connection.Of("msg.nack").Select(call => (long)FakeConnection.Body(call)["delay_ms"]!));
    }

    [Fact]
    public async Task NoMoreHandlersRunThanConcurrencySays()
    {
        FakeMailbox mailbox = new(40);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out _);
        int running = 0, most = 0;
        await using Mq9Consumer consumer = client.Consume("a.b", "g", async (_, token) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref running));
            await Task.Delay(1, token);
            Interlocked.Decrement(ref running);
        }, new ConsumeOptions { Concurrency = 4 });
        await UntilAsync(() => mailbox.Confirmed.Count == 40);
        Assert.InRange(most, 2, 4);
    }

    [Fact]
    public async Task StopWaitsForTheHandlerAndGivesTheRestBack()
    {
        FakeMailbox mailbox = new(10);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out _);
        TaskCompletionSource started = new(), go = new();
        Mq9Consumer consumer = client.Consume("a.b", "g", async (_, token) =>
        {
            started.TrySetResult();
            await go.Task.WaitAsync(token);
        });
        await started.Task.WaitAsync(Patience);
        Task stopping = consumer.StopAsync();
        Assert.False(stopping.IsCompleted);
        go.SetResult();
        await stopping.WaitAsync(Patience);
        await consumer.StopAsync();
        Assert.Equal([0L], mailbox.Confirmed);
        Assert.Equal(0, mailbox.Leased);
        Assert.Equal(9, consumer.GivenBack);
    }

    [Fact]
    public async Task StopFromInsideAHandlerEndsTheConsumer()
    {
        FakeMailbox mailbox = new(10);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out _);
        TaskCompletionSource<Mq9Consumer> made = new();
        Mq9Consumer consumer = client.Consume("a.b", "g", async (_, _) => await (await made.Task).StopAsync());
        made.SetResult(consumer);
        await consumer.Completion.WaitAsync(Patience);
        Assert.Equal([0L], mailbox.Confirmed);
        Assert.Equal(0, mailbox.Leased);
    }

    [Fact]
    public async Task CancellingCancelsTheHandlerAndGivesEverythingBack()
    {
        FakeMailbox mailbox = new(10);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out _);
        using CancellationTokenSource cancel = new();
        TaskCompletionSource started = new();
        Mq9Consumer consumer = client.Consume("a.b", "g", async (_, token) =>
        {
            started.TrySetResult();
            await Task.Delay(Timeout.Infinite, token);
        }, cancellationToken: cancel.Token);
        await started.Task.WaitAsync(Patience);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => consumer.Completion.WaitAsync(Patience));
        await UntilAsync(() => mailbox.Leased == 0);
        Assert.Empty(mailbox.Confirmed);
    }

    [Fact]
    public async Task WhatAnOutstandingFetchBringsAfterStopIsGivenBack()
    {
        TaskCompletionSource held = new();
        FakeMailbox mailbox = new(3) { Held = held.Task };
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out FakeConnection connection);
        Mq9Consumer consumer = client.Consume("a.b", "g", (_, _) => Task.CompletedTask);
        await UntilAsync(() => connection.Of("msg.fetch").Count == 1);
        await consumer.StopAsync().WaitAsync(Patience);
        held.SetResult();
        await UntilAsync(() => connection.Of("msg.nack").Count == 1);
        Assert.Equal("L1", (string?)FakeConnection.Body(connection.Of("msg.nack")[0])["lease_id"]);
        await UntilAsync(() => mailbox.Leased == 0);
    }

    [Fact]
    public async Task UnfinishedMessagesAreRenewed()
    {
        FakeMailbox mailbox = new(2);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out FakeConnection connection);
        TaskCompletionSource go = new();
        await using Mq9Consumer consumer = client.Consume("a.b", "g", (_, _) => go.Task, new ConsumeOptions { LeaseMs = 30 });
        await UntilAsync(() => connection.Of("msg.renew").Count >= 3);
        Assert.Equal(2, FakeConnection.Body(connection.Of("msg.renew")[0])["msg_ids"]!.AsArray().Count);
        go.SetResult();
    }

    [Fact]
    public async Task WhereAGroupStartsIsSentUntilAFetchSucceeds()
    {
        FakeMailbox mailbox = new(2);
        int fetches = 0;
        mailbox.Instead = call => call.Operation.Name == "msg.fetch" && ++fetches == 1 ? """{"error":"internal error: x","code":"internal"}""" : null;
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out FakeConnection connection);
        await using Mq9Consumer consumer = client.Consume("a.b", "g", (_, _) => Task.CompletedTask, new ConsumeOptions { Deliver = Deliver.Earliest });
        await UntilAsync(() => connection.Of("msg.fetch").Count >= 3);
        Assert.Equal(["earliest", "earliest", null], connection.Of("msg.fetch").Take(3).Select(call => (string?)FakeConnection.Body(call)["deliver"]));
        Assert.Equal(1, consumer.FailedFetches);
    }

    [Fact]
    public async Task IterationAcknowledgesWhatTheLoopHasDoneAndGivesTheRestBack()
    {
        FakeMailbox mailbox = new(10);
        await using Mq9Client client = FakeConnection.Client(mailbox.AnswerAsync, out _);
        await foreach (Mq9Message message in client.ConsumeAsync("a.b", "g"))
        {
            if (message.MsgId == 3)
            {
                break;
            }
        }

        Assert.Equal([0L, 1L, 2L], mailbox.Confirmed.Order());
        Assert.Equal(0, mailbox.Leased);
    }

    [Fact]
    public async Task AMessageOfAQueryHasNoConsumer()
    {
        Mq9InvalidArgumentException error = await Assert.ThrowsAsync<Mq9InvalidArgumentException>(() => new Mq9Message { MsgId = 1 }.AckAsync());
        Assert.Equal("message", error.Field);
    }

    [Theory]
    [InlineData(1, 1000)]
    [InlineData(2, 2000)]
    [InlineData(7, 60000)]
    [InlineData(long.MaxValue, 60000)]
    public void TheDelayGrows(long deliveries, long expected) => Assert.Equal(expected, ConsumeLoop.NackDelayMs(deliveries));

    internal static async Task UntilAsync(Func<bool> condition)
    {
        using CancellationTokenSource patience = new(Patience);
        while (!condition())
        {
            await Task.Delay(2, patience.Token);
        }
    }

    private static Func<Mq9Message, CancellationToken, Task> Keep(ConcurrentQueue<long> seen)
    {
        return (message, _) =>
        {
            seen.Enqueue(message.MsgId);
            return Task.CompletedTask;
        };
    }
}
