//! An application that answers hooks, as a test tells it to.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tidewire_testkit::{free_port, soon};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{SECRET, config};

/// What the application says to one question.
pub(super) enum Said {
    Answer(u16, Value),
    /// The text as it is.
    Text(u16, String),
    /// A status, and when to come back.
    Later(u16),
    /// Yes, once the gate is open.
    WhenOpen,
    /// It closes the connection.
    HangUp,
}

pub(super) fn yes() -> Said {
    Said::Answer(200, json!({}))
}

pub(super) fn no(code: &str, message: &str) -> Said {
    Said::Answer(200, json!({"error": {"code": code, "message": message}}))
}

pub(super) type Decide = Arc<dyn Fn(&Value) -> Said + Send + Sync>;

/// A real HTTP server that decides, and checks each signature.
pub(super) struct App {
    pub(super) port: u16,
    pub(super) asked: watch::Receiver<Vec<Value>>,
    pub(super) gate: watch::Sender<bool>,
    pub(super) listening: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl App {
    pub(super) async fn start(decide: impl Fn(&Value) -> Said + Send + Sync + 'static) -> Self {
        Self::start_at(free_port(), decide).await
    }

    pub(super) async fn start_at(
        port: u16,
        decide: impl Fn(&Value) -> Said + Send + Sync + 'static,
    ) -> Self {
        let decide: Decide = Arc::new(decide);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (all, asked) = watch::channel(Vec::new());
        let (gate, open) = watch::channel(false);
        let all = Arc::new(all);
        let listening = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let serve =
                    serve(BufReader::new(socket), decide.clone(), all.clone(), open.clone());
                // How a connection ends does not matter.
                tokio::spawn(async { serve.await.unwrap_or_default() });
            }
        });
        Self { port, asked, gate, listening }
    }

    /// The hooks' table of a gateway that asks here.
    pub(super) fn config(&self, hooks: &[&str]) -> String {
        config(self.port, hooks)
    }

    pub(super) fn asked(&self) -> Vec<Value> {
        self.asked.borrow().clone()
    }

    pub(super) async fn wait_asked(&mut self, count: usize) {
        soon("questions", self.asked.wait_for(|all| all.len() >= count)).await.unwrap();
    }
}

async fn serve(
    mut socket: BufReader<TcpStream>,
    decide: Decide,
    all: Arc<watch::Sender<Vec<Value>>>,
    mut open: watch::Receiver<bool>,
) -> std::io::Result<()> {
    loop {
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) => {
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                None if line.trim_end().is_empty() => break,
                None => assert_eq!(line.trim_end(), "POST /hook HTTP/1.1"),
            }
        }
        assert_eq!(headers["content-type"], "application/json");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        socket.read_exact(&mut body).await?;
        verify(&headers["tidewire-signature"], &body);
        let question: Value = serde_json::from_slice(&body).unwrap();
        let said = decide(&question);
        all.send_modify(|all| all.push(question));
        let mut more = "";
        let (status, text) = match said {
            Said::Answer(status, answer) => (status, answer.to_string()),
            Said::Text(status, text) => (status, text),
            Said::Later(status) => {
                more = "retry-after: 1\r\n";
                (status, String::new())
            }
            Said::WhenOpen => {
                let _ = open.wait_for(|open| *open).await;
                (200, String::new())
            }
            Said::HangUp => return Ok(()),
        };
        let length = text.len();
        let head = format!("HTTP/1.1 {status} x\r\n{more}content-length: {length}\r\n\r\n");
        socket.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await?;
    }
}

/// As docs/hooks.md tells the application to.
fn verify(header: &str, body: &[u8]) {
    let (time, signature) = header.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 60, "{header}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    let bytes = |at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
    let signature: Vec<_> = (0..signature.len()).step_by(2).map(bytes).collect();
    hmac::verify(&key, &signed, &signature).expect("a signature");
}
