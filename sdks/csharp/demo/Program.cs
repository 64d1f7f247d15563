using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Mq9.Demo;

/// <summary>An agent of the demo that counts words; see demo/README.md: registers itself, waits for the word `work`, works until SIGTERM.</summary>
internal static partial class Program
{
    private static readonly string Url = Environment.GetEnvironmentVariable("MQ9_URL") ?? "nats://127.0.0.1:4222";
    private static readonly string Name = Environment.GetEnvironmentVariable("MQ9_NAME") ?? "counter-csharp";
    private static readonly string Mailbox = Environment.GetEnvironmentVariable("MQ9_MAILBOX") ?? "counters";
    private static readonly int ThinkMs = int.Parse(Environment.GetEnvironmentVariable("MQ9_THINK_MS") ?? "0", CultureInfo.InvariantCulture);

    private static async Task Main()
    {
        TaskCompletionSource ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using PosixSignalRegistration terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, End);
        using PosixSignalRegistration interrupted = PosixSignalRegistration.Create(PosixSignal.SIGINT, End);

        await using Mq9Client client = await Mq9Client.ConnectAsync(Url, new ConnectOptions { Name = Name });
        try
        {
            await client.MailboxCreateAsync(Mailbox, new MailboxCreateOptions { Ttl = 600 });
        }
        catch (Mq9ServerException error) when (error.Code == ErrorCode.MailboxExists)
        {
            // A colleague was first.
        }

        JsonObject card = new()
        {
            ["description"] = "counts the words of a text, in C#",
            ["skills"] = new JsonArray(new JsonObject { ["id"] = "count-words" }),
            ["language"] = "C#",
        };
        await using AgentKeepAlive agent = await client.AgentKeepAliveAsync(Name, new AgentRegisterOptions { Mailbox = Mailbox, Card = card });
        Tell("ready");
        Task<string?> word = Task.Run(Console.In.ReadLineAsync);
        await Task.WhenAny(word, ended.Task);
        if (ended.Task.IsCompleted || (await word)?.Trim() != "work")
        {
            return;
        }

        ConsumeOptions options = new() { Deliver = Deliver.Earliest, NumMsgs = 1, LeaseMs = 2000, MaxWaitMs = 1000 };
        await using Mq9Consumer consumer = client.Consume(Mailbox, "workers", (message, token) => AnswerAsync(client, message, token), options);
        await Task.WhenAny(ended.Task, consumer.Completion);

        void End(PosixSignalContext context)
        {
            context.Cancel = true;
            ended.TrySetResult();
        }
    }

    private static async Task AnswerAsync(Mq9Client client, Mq9Message message, CancellationToken cancellationToken)
    {
        JsonElement task = message.Json();
        string document = task.GetProperty("document").GetString()!;
        Tell($"began {document} priority={message.Priority} delivery={message.DeliveryCount}");
        await Task.Delay(ThinkMs, cancellationToken);
        string text = task.GetProperty("text").GetString()!;
        int words = Words().Count(text);
        JsonArray top = [];
        IEnumerable<(string Word, int Count)> counts = LongWords().Matches(text)
            .GroupBy(match => match.Value.ToLowerInvariant())
            .Select(group => (Word: group.Key, Count: group.Count()))
            .OrderByDescending(item => item.Count)
            .ThenBy(item => item.Word, StringComparer.Ordinal)
            .Take(task.GetProperty("n").GetInt32());
        foreach ((string word, int count) in counts)
        {
            top.Add((JsonNode)new JsonArray(word, count));
        }

        JsonObject answer = new() { ["agent"] = Name, ["language"] = "C#", ["document"] = document, ["words"] = words, ["top"] = top };
        SendOptions options = new() { Priority = message.Priority, CorrelationId = message.CorrelationId };
        await client.SendAsync(message.ReplyTo ?? "", Payload.FromJson(answer), options, cancellationToken);
        Tell($"did {document} words={words}");
    }

    private static void Tell(string what) => Console.WriteLine(what);

    [GeneratedRegex("[A-Za-z]{4,}")]
    private static partial Regex LongWords();

    [GeneratedRegex(@"[^ \t\r\n\v\f]+")]
    private static partial Regex Words();
}
