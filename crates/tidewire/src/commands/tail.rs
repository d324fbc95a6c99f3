//! `tidewire tail`: follows a channel over Server-Sent Events, as an `EventSource` would.

use std::io::Write;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::timeout;

use crate::cli::Tail;
use crate::sse::{Event, Parser};

/// The pause before a reconnect when the stream names none.
const RETRY: Duration = Duration::from_secs(1);
/// Fruitless attempts double the pause up to this.
const LONGEST: Duration = Duration::from_secs(30);
/// Nodes write a heartbeat far more often than this unless they say otherwise; the head of an
/// answer comes at once.
const SILENCE: Duration = Duration::from_secs(90);

/// Prints each message as one line, until nobody reads or the node says that it will never be
/// otherwise. What passes by itself is waited for.
pub(crate) async fn run(arguments: Tail) -> anyhow::Result<()> {
    super::check_channel(&arguments.channel)?;
    let mut url = super::below(&arguments.url, &["v1", "sse"])?;
    url.query_pairs_mut().append_pair("channel", &arguments.channel).append_pair("envelope", "1");
    let client = super::with_token(super::client(&url), arguments.token.as_deref())?.build()?;
    let mut tail =
        Tailing { client, url, parser: Parser::default(), fruitless: 0, silence: SILENCE };
    loop {
        match tail.once().await? {
            Ended::NobodyReads | Ended::ForGood => return Ok(()),
            Ended::Passing(why) => {
                let pause = tail.pause();
                note(&format!("{why}; again in {:.1} s", pause.as_secs_f64()));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Why a connection ended, unless by a fault for good.
enum Ended {
    /// Standard output is closed.
    NobodyReads,
    /// The node asked never to come back (204, per the HTML standard).
    ForGood,
    /// Worth another attempt.
    Passing(String),
}

struct Tailing {
    client: Client,
    url: Url,
    parser: Parser,
    /// Attempts since the last event.
    fruitless: u32,
    /// A stream that is silent for longer counts as dead.
    silence: Duration,
}

impl Tailing {
    /// One connection from its request to its end. An error is one that no reconnect mends.
    async fn once(&mut self) -> anyhow::Result<Ended> {
        self.fruitless = self.fruitless.saturating_add(1);
        let mut request = self.client.get(self.url.clone()).header(ACCEPT, "text/event-stream");
        if !self.parser.last_id().is_empty() {
            request = request.header("last-event-id", self.parser.last_id().as_bytes());
        }
        let response = match timeout(SILENCE, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok(self.broken(error)),
            Err(_) => return Ok(Ended::Passing("no answer in time".to_owned())),
        };
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(Ended::ForGood);
        }
        if passing(status) {
            return Ok(Ended::Passing(format!("{:#}", super::problem_of(response).await)));
        }
        if status != StatusCode::OK {
            return Err(super::problem_of(response).await);
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        anyhow::ensure!(
            essence.eq_ignore_ascii_case("text/event-stream"),
            "{} does not answer with an event stream but with \"{kind}\"",
            self.url
        );
        self.follow(response).await
    }

    async fn follow(&mut self, mut response: Response) -> anyhow::Result<Ended> {
        self.parser.restart();
        let mut events = Vec::new();
        loop {
            let chunk = match timeout(self.silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Ok(Ended::Passing("the stream ended".to_owned())),
                Ok(Err(error)) => return Ok(self.broken(error)),
                Err(_) => return Ok(Ended::Passing("the stream fell silent".to_owned())),
            };
            if let Err(error) = self.parser.feed(&chunk, &mut events) {
                return Ok(Ended::Passing(error.to_string()));
            }
            for event in events.drain(..) {
                self.fruitless = 0;
                self.silence = silence(&event).unwrap_or(self.silence);
                if !print(&event)? {
                    return Ok(Ended::NobodyReads);
                }
            }
        }
    }

    /// A fault of the way here, which may mend.
    fn broken(&self, error: reqwest::Error) -> Ended {
        Ended::Passing(super::no_answer(&self.url, error).to_string())
    }

    /// The time that the stream asked for, doubled with each fruitless attempt, spread by a
    /// quarter either way so that many clients of a node that went down do not return as one.
    fn pause(&self) -> Duration {
        let base = self.parser.retry().unwrap_or(RETRY);
        let doublings = self.fruitless.saturating_sub(1).min(16);
        let pause = base.saturating_mul(1 << doublings).min(LONGEST.max(base));
        pause.mul_f64(0.75 + 0.5 * fastrand::f64())
    }
}

/// How long the stream may be silent, as its welcome tells: three heartbeats, but not so short
/// that a pause of the network ends it.
fn silence(event: &Event) -> Option<Duration> {
    let welcome = (event.name == "tidewire:welcome").then_some(&event.data)?;
    let welcome: serde_json::Value = serde_json::from_str(welcome).ok()?;
    let heartbeat = Duration::try_from_secs_f64(welcome.get("heartbeat")?.as_f64()?).ok()?;
    Some(heartbeat.saturating_mul(3).max(SILENCE))
}

/// Whether it may be otherwise next time.
fn passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// A message goes to standard output, what the node says about the stream to standard error.
fn print(event: &Event) -> anyhow::Result<bool> {
    // Line breaks in JSON can only stand between its tokens, where a space means the same.
    let data = event.data.replace('\n', " ");
    if event.name.starts_with("tidewire:") {
        note(&format!("{} {data}", event.name));
        return Ok(true);
    }
    super::line(&data)
}

/// Tells a person something; nothing depends on its being read.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tailing(fruitless: u32, stream: &str) -> Tailing {
        let mut parser = Parser::default();
        parser.feed(stream.as_bytes(), &mut Vec::new()).unwrap();
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        Tailing { client: Client::new(), url, parser, fruitless, silence: SILENCE }
    }

    #[test]
    fn the_welcome_tells_how_long_silence_may_last() {
        let of = |name: &str, data: &str| {
            silence(&Event { name: name.to_owned(), data: data.to_owned() }).map(|s| s.as_secs())
        };
        assert_eq!(of("tidewire:welcome", r#"{"heartbeat":15}"#), Some(90));
        assert_eq!(of("tidewire:welcome", r#"{"heartbeat":600}"#), Some(1800));
        assert_eq!(of("tidewire:welcome", r#"{"heartbeat":-1}"#), None);
        assert_eq!(of("tidewire:welcome", "{}"), None);
        assert_eq!(of("message", r#"{"heartbeat":600}"#), None);
    }

    #[test]
    fn the_pause_grows_to_a_bound_and_obeys_the_stream() {
        let cases = [
            (0, "", 1.0),
            (1, "", 1.0),
            (2, "", 2.0),
            (5, "", 16.0),
            (6, "", 30.0),
            (u32::MAX, "", 30.0),
            (0, "retry: 200\n", 0.2),
            (3, "retry: 200\n", 0.8),
            (0, "retry: 60000\n", 60.0),
            (9, "retry: 60000\n", 60.0),
        ];
        for (fruitless, stream, middle) in cases {
            let tail = tailing(fruitless, stream);
            for _ in 0..100 {
                let pause = tail.pause().as_secs_f64();
                let range = middle * 0.75..=middle * 1.25;
                assert!(range.contains(&pause), "{fruitless} {stream:?}: {pause}");
            }
        }
    }
}
