package io.mq9;

import io.nats.client.AuthenticationException;
import io.nats.client.Connection;
import io.nats.client.ConnectionListener;
import io.nats.client.ErrorListener;
import io.nats.client.Nats;
import io.nats.client.Options;
import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import org.jspecify.annotations.Nullable;

/** The servers of a client, and how to connect to one of them. */
final class Servers {
  private static final Set<String> SCHEMES = Set.of("nats", "tls", "ws", "wss");
  private static final Duration PING_INTERVAL = Duration.ofSeconds(20);

  private final ConnectOptions options;
  private final List<String> urls;
  private final Duration connectTimeout;
  private final long reconnectWaitMs;
  private final long reconnectWaitMaxMs;

  Servers(ConnectOptions options) {
    this.options = options;
    urls = parse(options.servers == null ? Constants.CONNECT_SERVERS : options.servers);
    connectTimeout =
        Duration.ofMillis(
            millis(
                "connect_timeout", options.connectTimeout, Constants.CONNECT_CONNECT_TIMEOUT_MS));
    reconnectWaitMs =
        millis("reconnect_wait", options.reconnectWait, Constants.CONNECT_RECONNECT_WAIT_MS);
    reconnectWaitMaxMs =
        millis(
            "reconnect_wait_max",
            options.reconnectWaitMax,
            Constants.CONNECT_RECONNECT_WAIT_MAX_MS);
    String file = options.credentialsFile;
    if (file != null && !Files.isRegularFile(Path.of(file))) {
      throw Mq9Exception.invalid("credentials_file", "there is no file " + Values.shown(file));
    }
  }

  static long millis(String field, @Nullable Duration given, long otherwise) {
    return given == null ? otherwise : Math.max(1, Values.nanos(field, given) / 1_000_000);
  }

  double reconnectWaitMs() {
    return reconnectWaitMs;
  }

  double reconnectWaitMaxMs() {
    return reconnectWaitMaxMs;
  }

  /** Server URLs, each once: every text may hold several with commas between. */
  static List<String> parse(List<String> given) {
    Set<String> found = new LinkedHashSet<>();
    for (String text : given) {
      for (String part : text.split(",", -1)) {
        if (!part.isBlank()) {
          found.add(url(part.strip()));
        }
      }
    }
    if (found.isEmpty()) {
      throw Mq9Exception.invalid("servers", "must not be empty");
    }
    if (found.stream().map(url -> url.startsWith("ws")).distinct().count() > 1) {
      throw Mq9Exception.invalid("servers", "must be all WebSocket URLs or none");
    }
    return new ArrayList<>(found);
  }

  private static String url(String text) {
    String url = text.contains("://") ? text : "nats://" + text;
    try {
      URI parts = new URI(url);
      if (SCHEMES.contains(parts.getScheme()) && parts.getHost() != null) {
        boolean portless = parts.getPort() < 0 && !parts.getScheme().startsWith("ws");
        return portless ? url.replaceFirst("/*$", "") + ":4222" : url;
      }
    } catch (URISyntaxException error) {
      throw Mq9Exception.invalid(
          "servers", Values.shown(redacted(url)) + " is no URL: " + error.getReason());
    }
    throw Mq9Exception.invalid(
        "servers", Values.shown(redacted(url)) + " is no URL like nats://host:4222");
  }

  /** A URL without what is before its host. */
  static String redacted(String url) {
    int at = url.lastIndexOf('@');
    int scheme = url.indexOf("://");
    return at < 0 || scheme < 0 ? url : url.substring(0, scheme + 3) + url.substring(at + 1);
  }

  /** Puts the server that was just lost last. */
  synchronized void rotate() {
    urls.add(urls.remove(0));
  }

  /** Connects to the first server that can be reached, and begins with that one from now on. */
  Connection connect(ConnectionListener listener) throws InterruptedException {
    List<String> candidates;
    synchronized (this) {
      candidates = List.copyOf(urls);
    }
    List<String> failures = new ArrayList<>();
    boolean refused = false;
    Exception last = null;
    for (String url : candidates) {
      try {
        Connection connection = connect(url, listener);
        begin(url, connection.getServerInfo().getConnectURLs());
        return connection;
      } catch (IOException | GeneralSecurityException | IllegalStateException error) {
        String why = String.valueOf(error.getMessage());
        refused = refused || isRefusal(error, why);
        failures.add(redacted(url) + ": " + why);
        last = error;
      }
    }
    throw Mq9Exception.withCode(
        ErrorKind.CONNECTION_CLOSED,
        refused ? ErrorCode.UNAUTHORIZED : null,
        "could not connect to " + String.join("; ", failures),
        last);
  }

  private static boolean isRefusal(Exception error, String why) {
    String lowered = why.toLowerCase(Locale.ROOT);
    return error instanceof AuthenticationException
        || lowered.contains("authoriz")
        || lowered.contains("authentic");
  }

  private synchronized void begin(String url, @Nullable List<String> discovered) {
    urls.remove(url);
    urls.add(0, url);
    if (discovered == null) {
      return;
    }
    String scheme = url.substring(0, url.indexOf("://") + 3);
    String rest = url.substring(scheme.length());
    String user = rest.substring(0, rest.lastIndexOf('@') + 1);
    for (String found : discovered) {
      String other =
          scheme + user + found.substring(found.indexOf("://") < 0 ? 0 : found.indexOf("://") + 3);
      if (!urls.contains(other)) {
        urls.add(other);
      }
    }
  }

  private Connection connect(String url, ConnectionListener listener)
      throws IOException, InterruptedException, GeneralSecurityException {
    List<String> errors = new CopyOnWriteArrayList<>();
    Options.Builder builder =
        Options.builder()
            .server(url)
            .noReconnect()
            .ignoreDiscoveredServers()
            .connectionTimeout(connectTimeout)
            .pingInterval(PING_INTERVAL)
            .connectionListener(listener)
            .errorListener(
                new ErrorListener() {
                  @Override
                  public void errorOccurred(Connection connection, String error) {
                    errors.add(error);
                  }
                });
    if (options.name != null) {
      builder.connectionName(options.name);
    }
    if (options.user != null) {
      String password = options.password == null ? "" : options.password;
      builder.userInfo(options.user.toCharArray(), password.toCharArray());
    }
    if (options.token != null) {
      builder.token(options.token.toCharArray());
    }
    if (options.credentialsFile != null) {
      builder.authHandler(Nats.credentials(options.credentialsFile));
    }
    if (options.tls != null) {
      builder.sslContext(options.tls);
    } else if (url.startsWith("tls:")) {
      builder.secure();
    }
    try {
      return Nats.connect(builder.build());
    } catch (IOException error) {
      String why = errors.isEmpty() ? error.getMessage() : String.join("; ", errors);
      if (error instanceof AuthenticationException) {
        throw error;
      }
      throw new IOException(why, error);
    }
  }
}
