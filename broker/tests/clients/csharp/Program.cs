// NATS.Client.Core, as the matrix calls it.
using System.Text;
using NATS.Client.Core;

static string? Env(string name) => Environment.GetEnvironmentVariable(name);

var auth = NatsAuthOpts.Default;
if (Env("MQ9_TOKEN") is { } token)
{
    auth = auth with { Token = token };
}

if (Env("MQ9_USER") is { } user)
{
    auth = auth with { Username = user, Password = Env("MQ9_PASSWORD") };
}

var tls = NatsTlsOpts.Default;
if (Env("MQ9_CA") is { } ca)
{
    tls = tls with
    {
        CaFile = ca,
        CertFile = Env("MQ9_CERT"),
        KeyFile = Env("MQ9_KEY"),
        Mode = Env("MQ9_TLS_FIRST") is null ? TlsMode.Require : TlsMode.Implicit,
    };
}

var options = NatsOpts.Default with
{
    Url = Env("MQ9_URL")!,
    AuthOpts = auth,
    TlsOpts = tls,
    ConnectTimeout = TimeSpan.FromSeconds(10),
    MaxReconnectRetry = 1,
    RetryOnInitialConnect = false,
};
await using var client = new NatsConnection(options);
await client.ConnectAsync();
var timeout = new NatsSubOpts { Timeout = TimeSpan.FromSeconds(10) };
var reply = await client.RequestAsync<byte[], byte[]>("$mq9.AI.MAILBOX.CREATE", "{}"u8.ToArray(), replyOpts: timeout);
Console.WriteLine(Encoding.UTF8.GetString(reply.Data!));
