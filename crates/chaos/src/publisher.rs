//! A publisher: sends each message, over one way or another, until it is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tidewire_protocol::Cursor;
use tokio_tungstenite::tungstenite::Message;

use crate::history::{Event, MessageNo, Via};
use crate::http::{self, Request};
use crate::message;
use crate::plan::{ChannelNo, Mode};
use crate::shared::{Phase, Shared, WebSocket, connect};

/// By then an attempt has failed. More than the gateway's own time-out.
const PATIENCE: Duration = Duration::from_secs(4);
/// By then a message is given up: its outcome stays unknown.
const PERSISTENCE: Duration = Duration::from_secs(40);

/// A publisher.
pub(crate) struct Publisher {
    no: usize,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    socket: Option<WebSocket>,
    redis: Option<MultiplexedConnection>,
    /// The mean time between its messages.
    pace: Duration,
}

/// What is sent, each time the same.
struct Draft {
    channel: ChannelNo,
    message: MessageNo,
    payload: Value,
    exclude: Option<String>,
}

impl Draft {
    /// The members of a body.
    fn body(&self) -> Value {
        let mut body = json!({"payload": self.payload});
        if let Some(session) = &self.exclude {
            body["exclude"] = session.as_str().into();
        }
        body
    }
}

/// What became of an attempt.
enum Outcome {
    Acked(Option<Cursor>, bool),
    Refused {
        certain: bool,
        why: String,
    },
    /// An answer that nothing explains.
    Wrong(String),
}

impl Publisher {
    pub(crate) fn new(no: usize, shared: Arc<Shared>, seed: u64, pace: Duration) -> Self {
        let rng = fastrand::Rng::with_seed(seed ^ (0xa000 + no as u64));
        Self { no, shared, rng, socket: None, redis: None, pace }
    }

    /// Publishes until the storm is over.
    pub(crate) async fn run(mut self) {
        while self.shared.phase() == Phase::Storm {
            let channel = self.channel();
            self.publish(channel).await;
            let pace = self.pace.mul_f64(2.0 * self.rng.f64());
            let _ = tokio::time::timeout(pace, self.shared.reached(Phase::Calm)).await;
        }
    }

    /// A third of the messages goes to the channel that keeps the least.
    fn channel(&mut self) -> ChannelNo {
        let channels = &self.shared.plan.channels;
        let kept = |channel: &ChannelNo| channels[*channel].kept.unwrap_or(usize::MAX);
        let least = (0..channels.len()).min_by_key(kept).unwrap_or(0);
        if self.rng.u8(..3) == 0 { least } else { self.rng.usize(..channels.len()) }
    }

    /// Publishes a message; its number and cursor once it is acknowledged.
    pub(crate) async fn publish(
        &mut self,
        channel: ChannelNo,
    ) -> Option<(MessageNo, Option<Cursor>)> {
        let message = self.shared.next_message();
        let padding = if self.rng.u8(..) < 8 { 4_000 } else { self.rng.usize(..200) };
        let payload = message::payload(message, padding);
        // A backend and a gateway's client are different publishers: retries stay with one. What a
        // backend publishes waits for no replica.
        let direct = self.rng.u8(..5) == 0 && self.shared.plan.mode != Mode::Standby;
        let shared = self.shared.clone();
        let exclude = (self.rng.u8(..6) == 0).then(|| shared.some_session(&mut self.rng)).flatten();
        let draft = Draft { channel, message, payload, exclude };
        let deadline = Instant::now() + PERSISTENCE;
        let (mut certain_only, mut acked) = (true, None);
        for attempt in 1.. {
            let via = match (direct, self.rng.u8(..3)) {
                (true, _) => Via::Function,
                (false, 0) if draft.exclude.is_none() => Via::WebSocket,
                (false, _) => Via::Http,
            };
            let publisher = self.no;
            let exclude = draft.exclude.clone();
            self.tell(Event::Attempt { message, channel, publisher, via, attempt, exclude });
            match self.attempt(via, &draft).await {
                Outcome::Acked(cursor, duplicate) => {
                    self.tell(Event::Ack { message, channel, cursor, duplicate });
                    acked = Some((message, cursor));
                    // At times it is sent again all the same, as if the ack had been lost.
                    if !self.shared.plan.is_stored(channel) || self.rng.u8(..8) > 0 {
                        return acked;
                    }
                }
                Outcome::Refused { certain, why } => {
                    certain_only &= certain;
                    self.tell(Event::Refused { message, channel, certain, why });
                }
                Outcome::Wrong(what) => {
                    let what = format!("publishing {message} over {}: {what}", via.as_str());
                    self.tell(Event::Flaw { what });
                    return None;
                }
            }
            // On a live channel a second attempt is a second message. And what is certainly not
            // stored is given up at times, to see whether it is.
            let give_up = certain_only && acked.is_none() && self.rng.u8(..4) == 0;
            if !self.shared.plan.is_stored(channel) || give_up || Instant::now() > deadline {
                return acked;
            }
            self.shared.sleep(Duration::from_millis(self.rng.u64(30..300))).await;
        }
        None
    }

    fn tell(&self, event: Event) {
        self.shared.history.tell(event);
    }

    async fn attempt(&mut self, via: Via, draft: &Draft) -> Outcome {
        let attempt = async {
            match via {
                Via::Function => self.over_redis(draft).await,
                Via::WebSocket => self.over_websocket(draft).await,
                _ => self.over_http(draft).await,
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, attempt).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
        outcome.unwrap_or_else(|error| {
            (self.socket, self.redis) = (None, None);
            Outcome::Refused { certain: false, why: format!("{error:#}") }
        })
    }

    async fn over_http(&mut self, draft: &Draft) -> anyhow::Result<Outcome> {
        let node = self.rng.usize(..self.shared.fronts.len());
        let name = self.shared.plan.name(draft.channel);
        let mut publication = draft.body();
        publication["messageId"] = message::id(draft.message).into();
        let in_batch = self.rng.u8(..4) == 0;
        let path = if in_batch {
            publication["channel"] = name.into();
            publication = json!({"messages": [publication]});
            "/v1/messages".to_owned()
        } else {
            format!("/v1/channels/{name}/messages")
        };
        let request = Request {
            method: "POST",
            path,
            headers: vec![("Content-Type", "application/json".into())],
            body: publication.to_string().into_bytes(),
        };
        let answer = http::ask(self.shared.fronts[node], &request, PATIENCE).await?;
        let mut body: Value = serde_json::from_slice(&answer.body).context("an answer in JSON")?;
        if in_batch && answer.status == 200 {
            body = body["results"][0].take();
        }
        self.judge(draft, &body)
    }

    async fn over_websocket(&mut self, draft: &Draft) -> anyhow::Result<Outcome> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let node = self.rng.usize(..self.shared.fronts.len());
                connect(self.shared.fronts[node], "/v1/ws").await?
            }
        };
        let name = self.shared.plan.name(draft.channel);
        let mut frame = draft.body();
        frame["type"] = "publish".into();
        frame["id"] = draft.message.into();
        frame["channel"] = name.into();
        frame["messageId"] = message::id(draft.message).into();
        socket.send(Message::text(frame.to_string())).await?;
        let answer = loop {
            let frame = socket.next().await.context("the connection ended")??;
            let Message::Text(text) = frame else { continue };
            let frame: Value = serde_json::from_str(&text)?;
            if frame["id"] == draft.message {
                break frame;
            }
        };
        self.socket = Some(socket);
        self.judge(draft, &answer)
    }

    /// An ack or an error of the gateway.
    fn judge(&self, draft: &Draft, answer: &Value) -> anyhow::Result<Outcome> {
        Ok(match answer["code"].as_str() {
            None if answer["messageId"] == message::id(draft.message) => {
                let plan = &self.shared.plan;
                let cursor = answer["cursor"].as_str();
                let cursor = cursor.map(|text| plan.cursor(draft.channel, text)).transpose();
                Outcome::Acked(cursor?, answer["duplicate"] == true)
            }
            Some(code @ ("unavailable" | "timeout" | "too_fast" | "too_many")) => {
                Outcome::Refused { certain: code == "unavailable", why: answer.to_string() }
            }
            _ => Outcome::Wrong(answer.to_string()),
        })
    }

    async fn over_redis(&mut self, draft: &Draft) -> anyhow::Result<Outcome> {
        let mut redis = match self.redis.take() {
            Some(redis) => redis,
            None => self.shared.redis(PATIENCE).await?,
        };
        let id = message::id(draft.message);
        let mut body = draft.body();
        let mut call = redis::cmd("FCALL");
        call.arg("tidewire_publish").arg(1);
        call.arg(format!("tidewire:{}", self.shared.plan.name(draft.channel)));
        // The id may be told either way.
        if draft.message.is_multiple_of(2) {
            call.arg(body.to_string()).arg(&id);
        } else {
            body["messageId"] = id.into();
            call.arg(body.to_string());
        }
        let (cursor, duplicate): (String, u8) = match call.query_async(&mut redis).await {
            Ok(reply) => reply,
            Err(error) => {
                let text = error.to_string();
                let is_wrong = ["CONFLICT", "INVALID", "TOOLARGE", "NOPERM", "NOSCRIPT"];
                if is_wrong.iter().any(|code| text.contains(code)) {
                    return Ok(Outcome::Wrong(text));
                }
                return Err(error.into());
            }
        };
        self.redis = Some(redis);
        let cursor = Some(cursor).filter(|text| !text.is_empty());
        let cursor =
            cursor.map(|text| self.shared.plan.cursor(draft.channel, &text)).transpose()?;
        Ok(Outcome::Acked(cursor, duplicate == 1))
    }
}
