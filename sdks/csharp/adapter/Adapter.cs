using System.Collections.Concurrent;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using NATS.Client.Core;

namespace Mq9.Adapter;

/// <summary>The conformance adapter of the C# SDK: JSON lines in, JSON lines out; see conformance/ADAPTERS.md.</summary>
internal sealed class Adapter
{
    private static readonly string[] Features = ["consume", "iterate", "keep_alive", "existing_connection"];
    private static readonly JsonSerializerOptions Json = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, MaxDepth = 1000 };

    private readonly ConcurrentDictionary<string, Mq9Client> _clients = new();
    private readonly ConcurrentDictionary<string, NatsConnection> _connections = new();
    private readonly ConcurrentDictionary<string, IBackground> _backgrounds = new();
    private readonly ConcurrentDictionary<long, (CancellationTokenSource Cancel, Task Done)> _requests = new();
    private readonly Stream _output = Console.OpenStandardOutput();
    private readonly object _gate = new();

    public static async Task<int> Main()
    {
        await new Adapter().RunAsync();
        return 0;
    }

    /// <summary>Writes one line of the protocol.</summary>
    public void Write(JsonObject line)
    {
        byte[] bytes = System.Text.Encoding.UTF8.GetBytes(line.ToJsonString(Json) + "\n");
        lock (_gate)
        {
            _output.Write(bytes);
            _output.Flush();
        }
    }

    /// <summary>Reads requests until the end of the input, then finishes.</summary>
    private async Task RunAsync()
    {
        using StreamReader input = new(Console.OpenStandardInput(), bufferSize: 1 << 16);
        while (await input.ReadLineAsync() is { } line)
        {
            JsonElement request = JsonDocument.Parse(line, new JsonDocumentOptions { MaxDepth = 1000 }).RootElement;
            long number = request.GetProperty("id").GetInt64();
            CancellationTokenSource cancel = new();
            TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
            _requests[number] = (cancel, done.Task);
            _ = ServeAsync(number, request, done, cancel.Token);
        }

        foreach ((CancellationTokenSource cancel, Task done) in _requests.Values)
        {
            await cancel.CancelAsync();
            await done;
        }

        foreach (IBackground background in _backgrounds.Values)
        {
            await background.CancelAsync();
        }

        foreach (Mq9Client client in _clients.Values)
        {
            await client.CloseAsync();
        }
    }

    private async Task ServeAsync(long number, JsonElement request, TaskCompletionSource done, CancellationToken cancellationToken)
    {
        JsonObject answer = new() { ["id"] = number };
        try
        {
            answer["ok"] = await CarryOutAsync(request, cancellationToken);
        }
        catch (Exception error) when (error is Mq9Exception or OperationCanceledException)
        {
            answer["error"] = Results.Error(error);
        }
        catch (Exception error)
        {
            answer["harness_error"] = error is NotUnderstoodException ? error.Message : error.ToString();
        }

        _requests.TryRemove(number, out _);
        Write(answer);
        done.SetResult();
    }

    private async Task<JsonNode?> CarryOutAsync(JsonElement request, CancellationToken cancellationToken)
    {
        string name = request.GetProperty("op").GetString()!;
        if (Dispatch.Find(name) is { } operation)
        {
            string[] decode = request.TryGetProperty("decode", out JsonElement wanted) ? [.. wanted.EnumerateArray().Select(item => item.GetString()!)] : [];
            return await operation(Client(request), request.GetProperty("args"), decode, cancellationToken);
        }

        if (name != "cancel" && request.TryGetProperty("of", out JsonElement of))
        {
            return _backgrounds.TryGetValue(of.GetString()!, out IBackground? background)
                ? await background.CommandAsync(name, request)
                : throw new NotUnderstoodException($"nothing runs as '{of}'");
        }

        switch (name)
        {
            case "hello":
                return new JsonObject
                {
                    ["sdk"] = "csharp",
                    ["sdk_version"] = typeof(Mq9Client).Assembly.GetName().Version!.ToString(3),
                    ["spec"] = Dispatch.SpecVersion,
                    ["features"] = Results.List(Features, Results.Text),
                };
            case "connect":
                await ConnectAsync(request, cancellationToken);
                break;
            case "close":
                await Client(request).CloseAsync();
                break;
            case "connection_open":
                return JsonValue.Create(await EndConnectionAsync(_connections[request.GetProperty("client").GetString()!]));
            case "cancel":
                await CancelAsync(request);
                return new JsonObject { ["ended"] = "cancelled" };
            case "consume":
                _backgrounds[Label(request)] = new ConsumerRun(this, Client(request), request);
                break;
            case "iterate":
                _backgrounds[Label(request)] = new IterationRun(Client(request), request.GetProperty("args"));
                break;
            case "agent_keep_alive":
                JsonElement args = request.GetProperty("args");
                _backgrounds[Label(request)] = new KeepAliveRun(
                    await Client(request).AgentKeepAliveAsync(Arguments.Text(args, "name") ?? "", Dispatch.Register(args), cancellationToken));
                break;
            default:
                throw new NotUnderstoodException($"there is no operation '{name}'");
        }

        return new JsonObject();
    }

    private static string Label(JsonElement request) => request.GetProperty("as").GetString()!;

    private static async Task<bool> EndConnectionAsync(NatsConnection connection)
    {
        bool isOpen = connection.ConnectionState == NatsConnectionState.Open;
        if (isOpen)
        {
            await connection.PingAsync();
        }

        await connection.DisposeAsync();
        return isOpen;
    }

    private Mq9Client Client(JsonElement request)
    {
        string name = request.GetProperty("client").GetString()!;
        return _clients.TryGetValue(name, out Mq9Client? client) ? client : throw new NotUnderstoodException($"client '{name}' was never connected");
    }

    private async Task ConnectAsync(JsonElement request, CancellationToken cancellationToken)
    {
        JsonElement args = request.GetProperty("args");
        string name = request.GetProperty("client").GetString()!;
        ConnectOptions options = Dispatch.Connect(args);
        Mq9Client client;
        if (Arguments.Boolean(args, "existing") is true)
        {
            NatsConnection connection = new(NatsOpts.Default with { Url = Arguments.Text(args, "servers")! });
            await connection.ConnectAsync();
            _connections[name] = connection;
            client = await Mq9Client.ConnectAsync(connection, options, cancellationToken);
        }
        else if (!args.TryGetProperty("servers", out JsonElement servers))
        {
            client = await Mq9Client.ConnectAsync(options: options, cancellationToken: cancellationToken);
        }
        else if (servers.ValueKind == JsonValueKind.Array)
        {
            client = await Mq9Client.ConnectAsync(Arguments.Texts(args, "servers")!, options, cancellationToken);
        }
        else
        {
            client = await Mq9Client.ConnectAsync(servers.GetString()!, options, cancellationToken);
        }

        _clients[name] = Mutants.Spoil(client);
    }

    private async Task CancelAsync(JsonElement request)
    {
        if (request.TryGetProperty("of", out JsonElement of))
        {
            if (_backgrounds.TryGetValue(of.GetString()!, out IBackground? background))
            {
                await background.CancelAsync();
            }
        }
        else if (_requests.TryGetValue(request.GetProperty("target").GetInt64(), out (CancellationTokenSource Cancel, Task Done) running))
        {
            await running.Cancel.CancelAsync();
            await running.Done;
        }
    }
}
