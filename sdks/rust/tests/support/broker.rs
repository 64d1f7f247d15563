//! Starts the reference broker, or a real NATS server, for a test.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use std::io::{BufRead as _, BufReader};

/// A process that ends with the test.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Starts a broker on a free port that keeps everything in memory.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0", &[])
    }

    /// Starts a broker with more arguments.
    pub fn start_on(listen: &str, more: &[&str]) -> Self {
        let program = std::env::var("MQ9_BROKER").unwrap_or_else(|_| {
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/mq9-broker").to_owned()
        });
        let mut child = Command::new(&program)
            .args(["serve", "--listen", listen, "--http", "127.0.0.1:0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let out = child.stdout.take().expect("its output");
        let mut lines = BufReader::new(out).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("ready nats="));
        let ready = ready.expect("the broker starts");
        let url = ready.split("nats=").nth(1).and_then(|rest| rest.split(' ').next());
        let url = url.expect("a URL").to_owned();
        std::thread::spawn(move || lines.count());
        Self {
            child,
            url,
        }
    }

    /// The address it listens on.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("nats://")
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A new mailbox address for each test.
pub fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until something holds, however slow the machine is.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}
