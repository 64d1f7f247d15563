// jnats, as the matrix calls it.
import io.nats.client.AuthHandler;
import io.nats.client.Connection;
import io.nats.client.NKey;
import io.nats.client.Nats;
import io.nats.client.Options;
import java.io.FileInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public final class Client {
  public static void main(String[] arguments) {
    try {
      run();
    } catch (Exception error) {
      error.printStackTrace();
      System.exit(1); // threads of the client may be left
    }
  }

  private static void run() throws Exception {
    Options.Builder options =
        new Options.Builder()
            .server(System.getenv("MQ9_URL"))
            .noReconnect()
            .connectionTimeout(Duration.ofSeconds(60));
    if (has("MQ9_TOKEN")) {
      options.token(System.getenv("MQ9_TOKEN").toCharArray());
    }
    if (has("MQ9_USER")) {
      options.userInfo(
          System.getenv("MQ9_USER").toCharArray(), System.getenv("MQ9_PASSWORD").toCharArray());
    }
    if (has("MQ9_NKEY")) {
      String seed = Files.readString(Path.of(System.getenv("MQ9_NKEY"))).strip();
      options.authHandler(new Seed(NKey.fromSeed(seed.toCharArray())));
    }
    if (has("MQ9_CREDS")) {
      options.authHandler(Nats.credentials(System.getenv("MQ9_CREDS")));
    }
    if (has("MQ9_CA")) {
      options.sslContext(context());
    }
    if (has("MQ9_TLS_FIRST")) {
      options.tlsFirst();
    }
    try (Connection connection = Nats.connect(options.build())) {
      byte[] body = "{}".getBytes(StandardCharsets.UTF_8);
      var reply =
          connection.request("$mq9.AI.MAILBOX.CREATE", body, Duration.ofSeconds(10));
      System.out.println(new String(reply.getData(), StandardCharsets.UTF_8));
    }
  }

  private static boolean has(String name) {
    return System.getenv(name) != null;
  }

  private static SSLContext context() throws Exception {
    KeyStore trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, null);
    try (var file = new FileInputStream(System.getenv("MQ9_CA"))) {
      trusted.setCertificateEntry(
          "ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(trusted);
    KeyManagerFactory keys = null;
    if (has("MQ9_P12")) {
      KeyStore own = KeyStore.getInstance("PKCS12");
      try (var file = new FileInputStream(System.getenv("MQ9_P12"))) {
        own.load(file, "mq9mq9".toCharArray());
      }
      keys = KeyManagerFactory.getInstance("PKIX");
      keys.init(own, "mq9mq9".toCharArray());
    }
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys == null ? null : keys.getKeyManagers(), trust.getTrustManagers(), null);
    return context;
  }

  /** Signs with a seed. */
  private record Seed(NKey key) implements AuthHandler {
    @Override
    public byte[] sign(byte[] nonce) {
      try {
        return key.sign(nonce);
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
    }

    @Override
    public char[] getID() {
      try {
        return key.getPublicKey();
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
    }

    @Override
    public char[] getJWT() {
      return null;
    }
  }
}
