//! Connecting: options, server URLs, and the NATS clients that come of them.

use std::fmt;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ServerAddr, Subscriber};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::Url;

use crate::client::{Client, ResponseFuture};
use crate::connection::{Connection, Link};
use crate::error::{Error, codes};
use crate::generated::constants;

const SCHEMES: &[&str] = &["nats", "tls", "ws", "wss"];
const DEFAULT_PORT: u16 = 4222;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Replies that may wait to be handed on; async-nats drops what is beyond that.
const REPLIES: usize = 1 << 20;
/// No server is ever there: async-nats gives up at once instead of reconnecting.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Connects to one of the servers and reconnects for ever: `mq9::connect("nats://127.0.0.1:4222").await?`.
///
/// Servers are one URL, several, or one text with commas between URLs. Each is tried once, in this order.
/// While the connection is down, a call waits for it as long as its timeout allows and then fails with
/// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout); nothing was sent then. A call that was waiting for its
/// reply when the connection broke fails with
/// [`ErrorKind::ConnectionClosed`](crate::ErrorKind::ConnectionClosed) at once, unless it may be tried again.
///
/// # Errors
///
/// - kind `connection_closed`: no server could be reached; with code `unauthorized` if one refused the
///   credentials.
/// - kind `invalid_argument`: an option is not as it should be.
pub fn connect(servers: impl ServerList) -> Connect {
    Connect::new(servers.texts())
}

/// What can be given as a list of servers: a text, with commas between URLs, or several.
pub trait ServerList {
    /// The texts of the list.
    fn texts(self) -> Vec<String>;
}

impl ServerList for &str {
    fn texts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl ServerList for String {
    fn texts(self) -> Vec<String> {
        vec![self]
    }
}

impl ServerList for &String {
    fn texts(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<T: Into<String>> ServerList for Vec<T> {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>, const N: usize> ServerList for [T; N] {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

/// TLS settings: the system's root certificates unless others are given.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    roots: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    config: Option<async_nats::rustls::ClientConfig>,
}

impl Tls {
    /// Insists on TLS; so does a URL with `tls://`.
    pub fn new() -> Self {
        Self::default()
    }

    /// A PEM file with root certificates to trust besides the system's.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(path.into());
        self
    }

    /// PEM files with the certificate and the key to show to the server.
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// A configuration of your own instead.
    #[must_use]
    pub fn config(mut self, config: async_nats::rustls::ClientConfig) -> Self {
        self.config = Some(config);
        self
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    servers: Vec<String>,
    name: Option<String>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    credentials_file: Option<PathBuf>,
    tls: Option<Tls>,
    timeout: Duration,
    connect_timeout: Duration,
    pub(crate) reconnect_wait: Duration,
    pub(crate) reconnect_wait_max: Duration,
}

impl Settings {
    pub(crate) fn servers(&self) -> Servers {
        Servers(self.servers.clone())
    }
}

/// A connection in the making, to be awaited. Made by [`connect`].
#[derive(Clone)]
#[must_use = "it connects when it is awaited"]
pub struct Connect {
    settings: Settings,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.settings.servers.iter().map(|url| redacted(url)).collect();
        f.debug_struct("Connect").field("servers", &servers).finish_non_exhaustive()
    }
}

impl Connect {
    fn new(servers: Vec<String>) -> Self {
        Self {
            settings: Settings {
                servers,
                name: None,
                user: None,
                password: None,
                token: None,
                credentials_file: None,
                tls: None,
                timeout: Duration::from_millis(constants::CONNECT_TIMEOUT_MS),
                connect_timeout: Duration::from_millis(constants::CONNECT_CONNECT_TIMEOUT_MS),
                reconnect_wait: Duration::from_millis(constants::CONNECT_RECONNECT_WAIT_MS),
                reconnect_wait_max: Duration::from_millis(constants::CONNECT_RECONNECT_WAIT_MAX_MS),
            },
        }
    }

    /// A name that the server shows for this connection.
    pub fn name(mut self, value: impl Into<String>) -> Self {
        self.settings.name = Some(value.into());
        self
    }

    /// User name.
    pub fn user(mut self, value: impl Into<String>) -> Self {
        self.settings.user = Some(value.into());
        self
    }

    /// Password of the user.
    pub fn password(mut self, value: impl Into<String>) -> Self {
        self.settings.password = Some(value.into());
        self
    }

    /// Authentication token.
    pub fn token(mut self, value: impl Into<String>) -> Self {
        self.settings.token = Some(value.into());
        self
    }

    /// A credentials file with a JWT and an NKey seed.
    pub fn credentials_file(mut self, value: impl Into<PathBuf>) -> Self {
        self.settings.credentials_file = Some(value.into());
        self
    }

    /// TLS settings.
    pub fn tls(mut self, value: Tls) -> Self {
        self.settings.tls = Some(value);
        self
    }

    /// How long a request waits for its reply, unless a call says otherwise. Default: 5 s.
    pub fn timeout(mut self, value: Duration) -> Self {
        self.settings.timeout = value;
        self
    }

    /// How long connecting to one server may take. Default: 5 s.
    pub fn connect_timeout(mut self, value: Duration) -> Self {
        self.settings.connect_timeout = value;
        self
    }

    /// The first pause before a reconnect; doubles with jitter. Default: 250 ms.
    pub fn reconnect_wait(mut self, value: Duration) -> Self {
        self.settings.reconnect_wait = value;
        self
    }

    /// The longest pause before a reconnect. Default: 10 s.
    pub fn reconnect_wait_max(mut self, value: Duration) -> Self {
        self.settings.reconnect_wait_max = value;
        self
    }

    async fn open(mut self) -> Result<Client, Error> {
        let settings = &mut self.settings;
        settings.servers = server_urls(&settings.servers)?;
        for (field, value) in [
            ("timeout", settings.timeout),
            ("connect_timeout", settings.connect_timeout),
            ("reconnect_wait", settings.reconnect_wait),
            ("reconnect_wait_max", settings.reconnect_wait_max),
        ] {
            check_timeout(field, value)?;
        }
        if let Some(path) = settings.credentials_file.as_ref().filter(|path| !path.is_file()) {
            let why = format!("there is no file {}", path.display());
            return Err(Error::invalid("credentials_file", why));
        }
        let timeout = settings.timeout;
        Ok(Client::new(Connection::open(self.settings).await?, timeout))
    }
}

impl IntoFuture for Connect {
    type Output = Result<Client, Error>;
    type IntoFuture = ResponseFuture<Client>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

pub(crate) fn check_timeout(field: &str, value: Duration) -> Result<(), Error> {
    if value.is_zero() { Err(Error::invalid(field, "must be longer than 0")) } else { Ok(()) }
}

fn server_urls(texts: &[String]) -> Result<Vec<String>, Error> {
    let mut urls: Vec<String> = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
        if text.is_empty() {
            continue;
        }
        let url = server_url(text)?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() {
        return Err(Error::invalid("servers", "must not be empty"));
    }
    let sockets = urls.iter().filter(|url| url.starts_with("ws")).count();
    if sockets != 0 && sockets != urls.len() {
        return Err(Error::invalid("servers", "must be all WebSocket URLs or none"));
    }
    if sockets != 0 && !cfg!(feature = "websockets") {
        return Err(Error::invalid("servers", "WebSocket URLs need the feature `websockets`"));
    }
    Ok(urls)
}

fn server_url(text: &str) -> Result<String, Error> {
    let full = if text.contains("://") { text.to_owned() } else { format!("nats://{text}") };
    let shown = redacted(&full);
    let mut url = Url::parse(&full)
        .map_err(|error| Error::invalid("servers", format_args!("{shown:?} is no URL: {error}")))?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    if !SCHEMES.contains(&url.scheme()) || !has_host || full.contains(char::is_whitespace) {
        let why = format_args!("{shown:?} is no URL like nats://host:4222");
        return Err(Error::invalid("servers", why));
    }
    if url.port().is_none() && !url.scheme().starts_with("ws") {
        url.set_port(Some(DEFAULT_PORT)).ok();
    }
    Ok(url.to_string().trim_end_matches('/').to_owned())
}

/// A URL without what is secret in it.
fn redacted(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((head, tail)) => {
            format!("{}://…@{tail}", head.split_once("://").map_or("", |(scheme, _)| scheme))
        }
        None => url.to_owned(),
    }
}

/// Servers in the order in which they are tried next.
pub(crate) struct Servers(Vec<String>);

impl Servers {
    /// Puts the server that was just lost last.
    pub(crate) fn rotate(&mut self) {
        if !self.0.is_empty() {
            self.0.rotate_left(1);
        }
    }

    /// Connects to the first server that can be reached, and puts it first.
    pub(crate) async fn connect(
        &mut self,
        settings: &Settings,
    ) -> Result<(Link, Subscriber), Error> {
        let mut failures = Vec::new();
        let mut refused = false;
        for index in 0..self.0.len() {
            let url = self.0[index].clone();
            match connect_to(&url, settings).await {
                Ok((link, replies)) => {
                    self.0.rotate_left(index);
                    self.add_discovered(&link, &url);
                    return Ok((link, replies));
                }
                Err(failure) => {
                    refused |= failure.refused;
                    failures.push(format!("{}: {}", redacted(&url), failure.why));
                }
            }
        }
        let error = Error::closed(format!("could not connect to {}", failures.join("; ")));
        Err(if refused { error.with_code(codes::UNAUTHORIZED) } else { error })
    }

    fn add_discovered(&mut self, link: &Link, url: &str) {
        let Ok(base) = Url::parse(url) else { return };
        for found in link.nats.server_info().connect_urls {
            let mut server = base.clone();
            let Ok(found) = Url::parse(&format!("nats://{found}")) else { continue };
            if server.set_host(found.host_str()).is_err() || server.set_port(found.port()).is_err()
            {
                continue;
            }
            let server = server.to_string().trim_end_matches('/').to_owned();
            if !self.0.contains(&server) {
                self.0.push(server);
            }
        }
    }
}

struct Failure {
    why: String,
    refused: bool,
}

impl Failure {
    fn new(error: &(dyn std::error::Error + 'static), refused: bool) -> Self {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !why.contains(&text) {
                why = format!("{why}: {text}");
            }
            cause = error.source();
        }
        let lower = why.to_lowercase();
        let refused = refused || lower.contains("authoriz") || lower.contains("authentic");
        Self {
            why,
            refused,
        }
    }

    fn late() -> Self {
        Self {
            why: "no answer in time".to_owned(),
            refused: false,
        }
    }
}

async fn connect_to(url: &str, settings: &Settings) -> Result<(Link, Subscriber), Failure> {
    timeout(settings.connect_timeout, connect_once(url, settings))
        .await
        .unwrap_or_else(|_| Err(Failure::late()))
}

async fn connect_once(url: &str, settings: &Settings) -> Result<(Link, Subscriber), Failure> {
    let mut options = async_nats::ConnectOptions::new()
        .connection_timeout(settings.connect_timeout)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(REPLIES)
        .request_timeout(None)
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::ZERO)
        .max_reconnects(1);
    if let Some(name) = &settings.name {
        options = options.name(name);
    }
    options = authenticate(options, url, settings).await?;
    if let Some(tls) = &settings.tls {
        options = options.require_tls(true);
        for path in &tls.roots {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &tls.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if let Some(config) = &tls.config {
            options = options.tls_client_config(config.clone());
        }
    }
    let address =
        |url: &str| ServerAddr::from_str(url).map_err(|error| Failure::new(&error, false));
    let nats = options.connect(address(url)?).await.map_err(|error| {
        use ConnectErrorKind::{Authentication, AuthorizationViolation};
        Failure::new(&error, matches!(error.kind(), Authentication | AuthorizationViolation))
    })?;
    nats.set_server_pool(address(NOWHERE)?).await.map_err(|error| Failure::new(&error, false))?;
    let inbox = nats.new_inbox();
    let replies =
        nats.subscribe(format!("{inbox}.*")).await.map_err(|error| Failure::new(&error, false))?;
    let link = Link {
        nats,
        inbox,
        url: Some(without_user(url)),
    };
    Ok((link, replies))
}

fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

/// Options win over what stands in the URL.
async fn authenticate(
    options: async_nats::ConnectOptions,
    url: &str,
    settings: &Settings,
) -> Result<async_nats::ConnectOptions, Failure> {
    if let Some(path) = &settings.credentials_file {
        return options.credentials_file(path).await.map_err(|error| Failure::new(&error, false));
    }
    if let Some(token) = &settings.token {
        return Ok(options.token(token.clone()));
    }
    if let Some(user) = &settings.user {
        let password = settings.password.clone().unwrap_or_default();
        return Ok(options.user_and_password(user.clone(), password));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Ok(
        match Url::parse(url).ok().map(|url| (decoded(url.username()), url.password().map(decoded)))
        {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) if !token.is_empty() => options.token(token),
            _ => options,
        },
    )
}
