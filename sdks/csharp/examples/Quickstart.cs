namespace Mq9.Examples;

/// <summary>The quickstart of the README, word for word.</summary>
internal static class Quickstart
{
    public static async Task RunAsync(string url)
    {
        // quickstart
        await using Mq9Client client = await Mq9Client.ConnectAsync(url);
        string inbox = await client.MailboxCreateAsync(options: new MailboxCreateOptions { Ttl = 600 });
        await client.SendAsync(inbox, "hello", new SendOptions { Priority = Priority.Urgent });

        ConsumeOptions options = new() { Deliver = Deliver.Earliest };
        await foreach (Mq9Message message in client.ConsumeAsync(inbox, "workers", options))
        {
            Console.WriteLine($"{message.Priority}: {message.Text()}");
            await message.AckAsync();
            break;
        }

        // end
    }
}
