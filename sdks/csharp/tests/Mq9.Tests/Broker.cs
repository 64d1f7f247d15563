using System.Diagnostics;
using System.Globalization;

namespace Mq9.Tests;

/// <summary>The reference broker in a process of its own.</summary>
internal sealed class Broker : IAsyncDisposable
{
    private readonly Process _process;

    private Broker(Process process, string ready)
    {
        _process = process;
        Url = Word(ready, "nats=");
        Http = Word(ready, "http=");
    }

    public string Url { get; }

    /// <summary>Where its metrics are.</summary>
    public string Http { get; }

    public static async Task<Broker> StartAsync(int port = 0, params string[] more)
    {
        ProcessStartInfo start = new(Program()) { RedirectStandardOutput = true, RedirectStandardError = true };
        string listen = "127.0.0.1:" + port.ToString(CultureInfo.InvariantCulture);
        foreach (string argument in (string[])["serve", "--listen", listen, "--http", "127.0.0.1:0", "--store", "memory", .. more])
        {
            start.ArgumentList.Add(argument);
        }

        Process process = Process.Start(start)!;
        _ = process.StandardError.ReadToEndAsync();
        using CancellationTokenSource patience = new(TimeSpan.FromSeconds(60));
        string line = await process.StandardOutput.ReadLineAsync(patience.Token) ?? throw new InvalidOperationException("the broker did not start");
        return new Broker(process, line);
    }

    private static string Word(string line, string start)
    {
        return line.Split(' ').Single(word => word.StartsWith(start, StringComparison.Ordinal))[start.Length..];
    }

    private static string Program()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            string program = Path.Combine(folder.FullName, ".venv", "bin", "mq9-broker");
            if (File.Exists(program))
            {
                return program;
            }
        }

        throw new InvalidOperationException("there is no .venv with the broker above the tests: run `make setup` in the root of the repository");
    }

    public Task<Mq9Client> ConnectAsync()
    {
        return Mq9Client.ConnectAsync(Url, new ConnectOptions { Timeout = TimeSpan.FromSeconds(30), ConnectTimeout = TimeSpan.FromSeconds(30) });
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
        }

        await _process.WaitForExitAsync();
        _process.Dispose();
    }
}
