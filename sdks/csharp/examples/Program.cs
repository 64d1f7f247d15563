namespace Mq9.Examples;

/// <summary>Runs the example that is named: dotnet run --project examples -- quickstart.</summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        string url = Environment.GetEnvironmentVariable("MQ9_URL") ?? "nats://127.0.0.1:4222";
        switch (args.FirstOrDefault())
        {
            case "quickstart":
                await Quickstart.RunAsync(url);
                return 0;
            case "worker-pool":
                await WorkerPool.RunAsync(url);
                return 0;
            case "request-reply":
                await RequestReply.RunAsync(url);
                return 0;
            case "agent-registry":
                await AgentRegistry.RunAsync(url);
                return 0;
            default:
                await Console.Error.WriteLineAsync("which example? quickstart, worker-pool, request-reply or agent-registry");
                return 2;
        }
    }
}
