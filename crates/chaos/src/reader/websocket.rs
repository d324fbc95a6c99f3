//! A reader's session over a WebSocket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidewire_protocol::Cursor;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{IDLE, Reader};
use crate::history::Event;
use crate::plan::ChannelNo;
use crate::shared::{Phase, WebSocket, connect};

/// What it asked for and has no answer to.
enum Asked {
    Subscribe(ChannelNo, Option<Cursor>),
    Unsubscribe(ChannelNo),
}

/// Requests without an answer, by their ids.
#[derive(Default)]
struct Open {
    next: u64,
    welcomed: bool,
    asked: HashMap<u64, Asked>,
}

impl Reader {
    pub(super) async fn talk(&mut self, addr: SocketAddr) -> anyhow::Result<()> {
        self.token = None;
        let in_address = self.rng.bool();
        let query = if in_address { self.query(true) } else { String::new() };
        let asked = self.places.clone();
        let mut socket = connect(addr, &format!("/v1/ws?{query}")).await?;
        let mut open = Open::default();
        if !in_address {
            for channel in self.channels.clone() {
                self.subscribe(&mut socket, &mut open, channel).await?;
            }
        }
        let shared = self.shared.clone();
        let weary = Self::weary(&shared, self.stay());
        tokio::pin!(weary);
        let mut leave_at = None;
        loop {
            let due = Instant::now() + Duration::from_millis(self.rng.u64(500..4_000));
            Self::readable(&shared, self.no).await;
            let frame = tokio::select! {
                () = &mut weary => return self.leave(socket).await,
                () = at(leave_at) => bail!("told to leave"),
                () = at(Some(due)), if shared.phase() == Phase::Storm => {
                    self.change(&mut socket, &mut open).await?;
                    continue;
                }
                frame = timeout(IDLE, socket.next()) => frame.context("silence")?,
            };
            match frame.context("the connection ended")?? {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text)?;
                    if frame["type"] == "shutdown" {
                        let wait = frame["reconnect"].as_u64().context("no time")?;
                        leave_at = Some(Instant::now() + Duration::from_millis(wait));
                    } else {
                        self.heard(&frame, &asked, &mut open)?;
                    }
                }
                Message::Close(close) => bail!("closed: {close:?}"),
                _ => {}
            }
        }
    }

    fn heard(
        &mut self,
        frame: &Value,
        asked: &HashMap<ChannelNo, Cursor>,
        open: &mut Open,
    ) -> anyhow::Result<()> {
        match frame["type"].as_str() {
            Some("message") => self.got(frame),
            Some("gap") => self.missed(frame),
            Some("shutdown") => bail!("told to leave"),
            Some("welcome") => {
                open.welcomed = true;
                self.welcomed(frame)?;
                for told in frame["channels"].as_array().context("no channels")? {
                    let channel = self.channel_of(told)?;
                    self.started(channel, asked.get(&channel).copied(), told)?;
                }
                Ok(())
            }
            Some("position") => {
                let channel = self.channel_of(frame)?;
                let place = self.place_of(channel, &frame["cursor"])?.context("no place")?;
                self.passed(channel, place);
                Ok(())
            }
            Some("ack") => {
                let id = frame["id"].as_u64().context("an ack without an id")?;
                match open.asked.remove(&id).context("an ack of nothing")? {
                    Asked::Subscribe(channel, asked) => self.started(channel, asked, frame),
                    Asked::Unsubscribe(channel) => {
                        self.tell(Event::Stop { reader: self.no, channel });
                        Ok(())
                    }
                }
            }
            Some("unsubscribed") => bail!("{frame}"),
            Some("error") => {
                let code = frame["code"].as_str().unwrap_or_default();
                if !matches!(code, "unavailable" | "timeout" | "not_subscribed") {
                    self.flaw(frame.to_string());
                }
                bail!("{frame}")
            }
            _ => {
                self.flaw(format!("an unknown frame: {frame}"));
                Ok(())
            }
        }
    }

    async fn subscribe(
        &mut self,
        socket: &mut WebSocket,
        open: &mut Open,
        channel: ChannelNo,
    ) -> anyhow::Result<()> {
        open.next += 1;
        let name = self.shared.plan.name(channel);
        let mut frame = json!({"type": "subscribe", "id": open.next, "channel": name});
        let place = self.places.get(&channel).copied();
        match place {
            Some(place) => frame["cursor"] = place.to_string().into(),
            None if self.shared.plan.is_stored(channel) && self.rng.bool() => {
                frame["rewind"] = self.rng.u8(1..40).into();
            }
            None => {}
        }
        open.asked.insert(open.next, Asked::Subscribe(channel, place));
        send(socket, &frame).await
    }

    /// Leaves a channel, or comes back to one that it left.
    async fn change(&mut self, socket: &mut WebSocket, open: &mut Open) -> anyhow::Result<()> {
        if !open.welcomed || !open.asked.is_empty() || self.rng.u8(..4) > 0 {
            return Ok(());
        }
        let channel = self.channels[self.rng.usize(..self.channels.len())];
        open.next += 1;
        open.asked.insert(open.next, Asked::Unsubscribe(channel));
        let name = self.shared.plan.name(channel);
        let frame = json!({"type": "unsubscribe", "id": open.next, "channel": name});
        send(socket, &frame).await?;
        let id = open.next;
        // What comes until it is answered still counts.
        let wait = async {
            while open.asked.contains_key(&id) {
                let frame = socket.next().await.context("the connection ended")??;
                let Message::Text(text) = frame else { continue };
                self.heard(&serde_json::from_str(&text)?, &HashMap::new(), open)?;
            }
            anyhow::Ok(())
        };
        timeout(IDLE, wait).await.context("no answer")??;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..300))).await;
        self.subscribe(socket, open, channel).await
    }

    async fn leave(&self, mut socket: WebSocket) -> anyhow::Result<()> {
        let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
        Ok(())
    }
}

async fn send(socket: &mut WebSocket, frame: &Value) -> anyhow::Result<()> {
    let send = socket.send(Message::text(frame.to_string()));
    Ok(timeout(IDLE, send).await.context("a frame could not be sent")??)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
