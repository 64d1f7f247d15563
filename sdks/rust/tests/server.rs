//! Against a real NATS server on which nobody serves mq9: credentials and the absence of a broker.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use mq9::{ErrorKind, HandlerError, Tls, codes};

type Result<T = (), E = HandlerError> = std::result::Result<T, E>;

/// A NATS server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let program = std::env::var("MQ9_NATS_SERVER").unwrap_or_else(|_| {
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/nats-server").to_owned()
        });
        let mut child = Command::new(&program)
            .args(["--addr", "127.0.0.1", "--port", "-1"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let listening = "Listening for client connections on ";
        let address = lines.by_ref().map_while(std::io::Result::ok).find_map(|line| {
            line.split_once(listening).map(|(_, address)| address.trim().to_owned())
        });
        std::thread::spawn(move || lines.count());
        Self {
            child,
            address: address.expect("the server starts"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn credentials_are_options_or_stand_in_the_url() -> Result {
    let server = Server::start(&["--user", "worker", "--pass", "s3 cret"]);
    let address = &server.address;
    mq9::connect(address).user("worker").password("s3 cret").await?.close().await;
    mq9::connect(format!("nats://worker:s3%20cret@{address}")).await?.close().await;
    let wrong = mq9::connect(format!("nats://worker:wrong@{address}")).await;
    let wrong = wrong.expect_err("the password is wrong");
    assert_eq!(wrong.kind(), ErrorKind::ConnectionClosed);
    assert_eq!(wrong.code(), Some(codes::UNAUTHORIZED));
    assert!(!wrong.to_string().contains("wrong"), "no password in a message: {wrong}");
    Ok(())
}

#[tokio::test]
async fn a_token_is_an_option_or_stands_in_the_url() -> Result {
    let server = Server::start(&["--auth", "t0ken"]);
    mq9::connect(&server.address).token("t0ken").await?.close().await;
    mq9::connect(format!("t0ken@{}", server.address)).await?.close().await;
    let none = mq9::connect(&server.address).await.expect_err("a token is needed");
    assert_eq!(none.code(), Some(codes::UNAUTHORIZED));
    Ok(())
}

#[tokio::test]
async fn nobody_who_serves_mq9_is_no_responders() -> Result {
    let server = Server::start(&[]);
    let client = mq9::connect(&server.address).await?;
    let nobody = client.mailbox_info("a.b").await.expect_err("there is no broker");
    assert_eq!(nobody.kind(), ErrorKind::NoResponders);
    assert_eq!(nobody.operation(), Some("mailbox.info"));
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_does_not_get_the_password() -> Result {
    let server = Server::start(&["--user", "worker", "--pass", "s3cret"]);
    let secure = mq9::connect(&server.address).user("worker").password("s3cret").tls(Tls::new());
    let refused = secure.connect_timeout(std::time::Duration::from_secs(2)).await;
    assert_eq!(refused.expect_err("it has no TLS").kind(), ErrorKind::ConnectionClosed);
    let file = mq9::connect(&server.address).credentials_file("no/such.creds").await;
    assert_eq!(file.expect_err("no such file").field(), Some("credentials_file"));
    Ok(())
}

#[tokio::test]
async fn tls_is_verified_and_carries_requests() -> Result {
    let folder = std::env::temp_dir().join(format!("mq9-rust-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let python = std::env::var("MQ9_PYTHON").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/python").to_owned()
    });
    let made = Command::new(python)
        .args(["-m", "trustme", "--quiet", "--identities", "127.0.0.1", "--dir"])
        .arg(&folder)
        .status()?;
    assert!(made.success(), "certificates are made");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let server = Server::start(&["--tls", "--tlscert", &certificate, "--tlskey", &key]);
    let untrusted = mq9::connect(&server.address).await.expect_err("nobody knows this authority");
    assert_eq!(untrusted.kind(), ErrorKind::ConnectionClosed);
    let tls = Tls::new().root_certificates(file("client.pem"));
    let client = mq9::connect(format!("tls://{}", server.address)).tls(tls).await?;
    let nobody = client.mailbox_info("a.b").await.expect_err("there is no broker");
    assert_eq!(nobody.kind(), ErrorKind::NoResponders);
    client.close().await;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
