//! async-nats, as the matrix calls it.
use std::env::var;
use std::error::Error;
use std::fs::read_to_string;
use std::time::Duration;

use async_nats::ConnectOptions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut options = ConnectOptions::new()
        .max_reconnects(1)
        .connection_timeout(Duration::from_secs(10));
    if let Ok(token) = var("MQ9_TOKEN") {
        options = options.token(token);
    }
    if let Ok(user) = var("MQ9_USER") {
        options = options.user_and_password(user, var("MQ9_PASSWORD")?);
    }
    if let Ok(file) = var("MQ9_NKEY") {
        options = options.nkey(read_to_string(file)?);
    }
    if let Ok(file) = var("MQ9_CREDS") {
        options = options.credentials_file(file).await?;
    }
    if let Ok(file) = var("MQ9_CA") {
        options = options.add_root_certificates(file.into()).require_tls(true);
    }
    if let Ok(file) = var("MQ9_CERT") {
        options = options.add_client_certificate(file.into(), var("MQ9_KEY")?.into());
    }
    if var("MQ9_TLS_FIRST").is_ok() {
        options = options.tls_first();
    }
    let client = options.connect(var("MQ9_URL")?).await?;
    let request = client.request("$mq9.AI.MAILBOX.CREATE", "{}".into());
    let reply = tokio::time::timeout(Duration::from_secs(10), request).await??;
    println!("{}", String::from_utf8_lossy(&reply.payload));
    Ok(())
}
