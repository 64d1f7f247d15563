using System.Collections.Concurrent;

namespace Mq9.Examples;

/// <summary>Two workers of one consumer group share twelve tasks; one task fails once and comes again.</summary>
internal static class WorkerPool
{
    public static async Task RunAsync(string url)
    {
        await using Mq9Client client = await Mq9Client.ConnectAsync(url);
        string tasks = await client.MailboxCreateAsync(options: new MailboxCreateOptions { Ttl = 600 });
        for (int number = 0; number < 12; number++)
        {
            await client.SendAsync(tasks, $"task {number}");
        }

        ConcurrentDictionary<string, string> done = new();
        TaskCompletionSource all = new(TaskCreationOptions.RunContinuationsAsynchronously);
        int failures = 0;
        ConsumeOptions options = new()
        {
            Deliver = Deliver.Earliest,
            NumMsgs = 2,
            Concurrency = 2,
            OnError = (error, message) =>
            {
                Console.WriteLine($"{message?.Text()}: {error.Message}, it will come again");
                return Task.CompletedTask;
            },
        };
        await using Mq9Consumer first = client.Consume(tasks, "workers", (message, token) => WorkAsync("first", message, token), options);
        await using Mq9Consumer second = client.Consume(tasks, "workers", (message, token) => WorkAsync("second", message, token), options);
        await all.Task.WaitAsync(TimeSpan.FromSeconds(60));
        Console.WriteLine($"{done.Count} tasks done");

        async Task WorkAsync(string worker, Mq9Message message, CancellationToken cancellationToken)
        {
            await Task.Delay(10, cancellationToken);
            if (message.Text() == "task 5" && Interlocked.Increment(ref failures) == 1)
            {
                throw new InvalidOperationException("something went wrong");
            }

            done[message.Text()] = worker;
            if (done.Count == 12)
            {
                all.TrySetResult();
            }
        }
    }
}
