using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using NATS.Client.Core;
using Xunit;

namespace Mq9.Tests;

/// <summary>TLS, with certificates made here.</summary>
public sealed class TlsTests : IDisposable
{
    private static readonly DateTimeOffset Now = DateTimeOffset.UtcNow;
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("mq9-tls-");

    public TlsTests()
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new("CN=authority", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        using X509Certificate2 authority = request.CreateSelfSigned(Now.AddDays(-1), Now.AddDays(1));
        File.WriteAllText(PathOf("authority.pem"), authority.ExportCertificatePem());
        Issue(authority, "server");
        Issue(authority, "client");
    }

    public void Dispose() => _folder.Delete(true);

    [Fact]
    public async Task TheServerIsVerifiedAndRequestsPass()
    {
        await using Broker broker = await Broker.StartAsync(0, "--tls-cert", PathOf("server.pem"), "--tls-key", PathOf("server.key"));
        await using Mq9Client client = await Mq9Client.ConnectAsync(Secure(broker), new ConnectOptions { Tls = new NatsTlsOpts { CaFile = PathOf("authority.pem") } });
        Assert.Equal("a.b", await client.MailboxCreateAsync("a.b"));
        // Nobody has told this one to trust the authority.
        await Assert.ThrowsAsync<Mq9ConnectionClosedException>(() => Mq9Client.ConnectAsync(Secure(broker), new ConnectOptions { Tls = new NatsTlsOpts() }));
    }

    [Fact]
    public async Task TheClientShowsACertificateWhereOneIsAskedFor()
    {
        await using Broker broker = await Broker.StartAsync(
            0, "--tls-cert", PathOf("server.pem"), "--tls-key", PathOf("server.key"), "--tls-ca", PathOf("authority.pem"));
        NatsTlsOpts tls = new() { CaFile = PathOf("authority.pem"), CertFile = PathOf("client.pem"), KeyFile = PathOf("client.key") };
        await using Mq9Client client = await Mq9Client.ConnectAsync(Secure(broker), new ConnectOptions { Tls = tls });
        Assert.Equal("a.b", await client.MailboxCreateAsync("a.b"));
        await Assert.ThrowsAsync<Mq9ConnectionClosedException>(
            () => Mq9Client.ConnectAsync(Secure(broker), new ConnectOptions { Tls = new NatsTlsOpts { CaFile = PathOf("authority.pem") } }));
    }

    private static string Secure(Broker broker) => "tls://127.0.0.1:" + new Uri(broker.Url).Port.ToString(System.Globalization.CultureInfo.InvariantCulture);

    private string PathOf(string name) => Path.Combine(_folder.FullName, name);

    private void Issue(X509Certificate2 authority, string name)
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new("CN=" + name, key, HashAlgorithmName.SHA256);
        SubjectAlternativeNameBuilder names = new();
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        using X509Certificate2 issued = request.Create(authority, Now.AddDays(-1), Now.AddHours(23), RandomNumberGenerator.GetBytes(8));
        File.WriteAllText(PathOf(name + ".pem"), issued.ExportCertificatePem());
        File.WriteAllText(PathOf(name + ".key"), key.ExportPkcs8PrivateKeyPem());
    }
}
