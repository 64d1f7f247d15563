using System.Text.Json.Nodes;

namespace Mq9.Examples;

/// <summary>One agent asks another and gets the answer in its own mailbox.</summary>
internal static class RequestReply
{
    public static async Task RunAsync(string url)
    {
        await using Mq9Client asker = await Mq9Client.ConnectAsync(url, new ConnectOptions { Name = "asker" });
        await using Mq9Client adder = await Mq9Client.ConnectAsync(url, new ConnectOptions { Name = "adder" });
        MailboxCreateOptions shortLived = new() { Ttl = 600 };
        string questions = await adder.MailboxCreateAsync(options: shortLived);
        string answers = await asker.MailboxCreateAsync(options: shortLived);
        ConsumeOptions fromTheStart = new() { Deliver = Deliver.Earliest };

        await using Mq9Consumer consumer = adder.Consume(questions, "adders", AnswerAsync, fromTheStart);
        Payload question = Payload.FromJson(new JsonObject { ["add"] = new JsonArray(2, 3) });
        await asker.SendAsync(questions, question, new SendOptions { ReplyTo = answers, CorrelationId = "question-1" });
        await foreach (Mq9Message answer in asker.ConsumeAsync(answers, "asker", fromTheStart))
        {
            Console.WriteLine($"{answer.CorrelationId}: {answer.Json().GetProperty("sum").GetInt64()}");
            await answer.AckAsync();
            break;
        }

        async Task AnswerAsync(Mq9Message message, CancellationToken cancellationToken)
        {
            long sum = message.Json().GetProperty("add").EnumerateArray().Sum(number => number.GetInt64());
            SendOptions options = new() { CorrelationId = message.CorrelationId, Retry = true };
            await adder.SendAsync(message.ReplyTo!, Payload.FromJson(new JsonObject { ["sum"] = sum }), options, cancellationToken);
        }
    }
}
