using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mq9.Examples;

/// <summary>An agent registers itself, another finds it by a keyword.</summary>
internal static class AgentRegistry
{
    public static async Task RunAsync(string url)
    {
        await using Mq9Client client = await Mq9Client.ConnectAsync(url);
        string name = $"translator-{Guid.NewGuid():N}";
        AgentRegisterOptions options = new()
        {
            Mailbox = "translator.inbox",
            Card = new JsonObject { ["description"] = "Translates prose from English into Welsh.", ["skills"] = new JsonArray("translate") },
        };
        await using AgentKeepAlive agent = await client.AgentKeepAliveAsync(name, options);
        DiscoverResult found = await client.AgentDiscoverAsync("welsh");
        foreach (JsonElement card in found.Agents.Where(card => card.GetProperty("name").GetString() == name))
        {
            Console.WriteLine($"found an agent at {card.GetProperty("mailbox").GetString()}: {card.GetProperty("description").GetString()}");
        }
    }
}
