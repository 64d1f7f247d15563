//! A NATS server of a few lines: it records requests, and answers them as a test says.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This body.
    Body(Vec<u8>),
    /// A status and no body, such as 503.
    Status(u16),
    /// Nothing.
    Silence,
    /// The end of the connection.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub payload: Vec<u8>,
}

type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// The server; it ends with its runtime.
#[derive(Clone)]
pub struct Fake {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Starts a server that answers as the script says.
    pub async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let fake = Self {
            url: format!("nats://{}", listener.local_addr().expect("an address")),
            requests: Arc::default(),
        };
        let (requests, script): (_, Script) = (fake.requests.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, requests.clone(), script.clone()));
            }
        });
        fake
    }

    /// What has come so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const INFO: &str = r#"INFO {"server_id":"F","server_name":"fake","version":"2.15.0","go":"go","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1,"client_id":1}"#;

async fn serve(
    stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Script,
) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write.write_all(format!("{INFO}\r\n").as_bytes()).await.ok()?;
    let mut inbox_sid = String::new();
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied().unwrap_or_default() {
            "PING" => write.write_all(b"PONG\r\n").await.ok()?,
            "SUB" => inbox_sid = (*words.last()?).to_owned(),
            verb @ ("PUB" | "HPUB") => {
                let size: usize = words.last()?.parse().ok()?;
                let mut content = vec![0; size + 2];
                read.read_exact(&mut content).await.ok()?;
                content.truncate(size);
                let mut request = Request {
                    subject: words[1].to_owned(),
                    ..Request::default()
                };
                let reply =
                    words.get(2).filter(|_| words.len() > if verb == "PUB" { 3 } else { 4 });
                if verb == "HPUB" {
                    let headers: usize = words[words.len() - 2].parse().ok()?;
                    request.payload = content.split_off(headers);
                    let text = String::from_utf8(content).ok()?;
                    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
                        let (name, value) = line.split_once(':')?;
                        request.headers.push((name.to_owned(), value.trim().to_owned()));
                    }
                } else {
                    request.payload = content;
                }
                let Some(reply) = reply else { continue };
                if !request.subject.starts_with('$') {
                    continue;
                }
                requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                match script(&request) {
                    Answer::Body(body) => {
                        let head = format!("MSG {reply} {inbox_sid} {}\r\n", body.len());
                        write.write_all(head.as_bytes()).await.ok()?;
                        write.write_all(&body).await.ok()?;
                        write.write_all(b"\r\n").await.ok()?;
                    }
                    Answer::Status(status) => {
                        let headers = format!("NATS/1.0 {status}\r\n\r\n");
                        let size = headers.len();
                        let text =
                            format!("HMSG {reply} {inbox_sid} {size} {size}\r\n{headers}\r\n");
                        write.write_all(text.as_bytes()).await.ok()?;
                    }
                    Answer::Silence => {}
                    Answer::Close => return None,
                }
            }
            _ => {}
        }
    }
}
