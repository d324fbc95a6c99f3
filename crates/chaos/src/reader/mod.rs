//! A reader: a client that follows some channels, over one transport after the other, on one node
//! after the other, and goes on where it was.

mod poll;
mod sse;
mod websocket;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tidewire_protocol::{Cursor, StreamToken};
use tokio::time::timeout;

use crate::history::{Event, ReaderNo, Via};
use crate::message;
use crate::plan::ChannelNo;
use crate::shared::{Phase, Shared, THIRDS};

/// A connection on which nothing comes for so long is dead: heartbeats come every 2 or 3 s.
const IDLE: Duration = Duration::from_secs(8);

/// A reader.
pub(crate) struct Reader {
    no: ReaderNo,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    channels: Vec<ChannelNo>,
    /// Where it is on each stored channel.
    places: HashMap<ChannelNo, Cursor>,
    /// The one id that the last event stream or poll told.
    token: Option<String>,
    via: Via,
}

impl Reader {
    pub(crate) fn new(no: ReaderNo, shared: Arc<Shared>, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ (0xb0000 + no as u64));
        let via = [Via::WebSocket, Via::Sse, Via::Poll][no % 3];
        let count = rng.usize(1..=3);
        let all = 0..shared.plan.channels.len();
        let mut channels = rng.choose_multiple(all, count);
        // Every other reader can poll.
        if via == Via::Poll {
            channels.retain(|channel| shared.plan.is_stored(*channel));
            if channels.is_empty() {
                channels.push(0);
            }
        }
        channels.sort_unstable();
        Self { no, shared, rng, channels, places: HashMap::new(), token: None, via }
    }

    /// The channels that it follows.
    pub(crate) fn channels(&self) -> &[ChannelNo] {
        &self.channels
    }

    /// Reads until the round is over.
    pub(crate) async fn run(mut self) {
        while self.shared.phase() < Phase::Over {
            self.choose();
            let node = self.rng.usize(..self.shared.fronts.len());
            let (reader, via) = (self.no, self.via);
            self.tell(Event::Open { reader, via, node });
            let addr = self.shared.fronts[node];
            let ended = match via {
                Via::Sse => self.stream(addr).await,
                Via::Poll => self.poll(addr).await,
                _ => self.talk(addr).await,
            };
            let why = ended.map_or_else(|error| format!("{error:#}"), |()| "left".into());
            self.tell(Event::Close { reader, why });
            let away = self.away();
            let _ = timeout(away, self.shared.reached(Phase::Calm)).await;
        }
    }

    /// How the next session is to be: mostly as the last one.
    fn choose(&mut self) {
        if self.shared.phase() > Phase::Storm {
            return;
        }
        if self.rng.u8(..30) == 0 {
            // It begins anew.
            self.places.clear();
            self.token = None;
        }
        if self.rng.u8(..4) == 0 {
            let all = [Via::WebSocket, Via::Sse, Via::Poll];
            self.via = all[self.rng.usize(..if self.has_only_stored() { 3 } else { 2 })];
        }
    }

    /// Returns when a session is to end: sooner or later, but not in the calm.
    async fn weary(shared: &Shared, stay: Duration) {
        tokio::time::sleep(stay).await;
        if shared.phase() > Phase::Storm {
            shared.reached(Phase::Over).await;
        }
    }

    fn stay(&mut self) -> Duration {
        let most = if self.rng.u8(..3) == 0 { 2_000 } else { 15_000 };
        Duration::from_millis(self.rng.u64(200..most))
    }

    /// How long it is away: mostly for a moment, at times for longer than little is kept.
    fn away(&mut self) -> Duration {
        let is_long = self.shared.phase() == Phase::Storm && self.rng.u8(..25) == 0;
        let (from, to) = if is_long { (4_000, 15_000) } else { (20, 600) };
        Duration::from_millis(self.rng.u64(from..to))
    }

    /// Returns when it may read.
    async fn readable(shared: &Shared, no: ReaderNo) {
        let third = Some(no % THIRDS);
        let _ = shared.paused.subscribe().wait_for(|paused| *paused != third).await;
    }

    fn tell(&self, event: Event) {
        self.shared.history.tell(event);
    }

    /// The channel of a frame.
    fn channel_of(&self, frame: &Value) -> anyhow::Result<ChannelNo> {
        let name = frame["channel"].as_str().with_context(|| format!("no channel: {frame}"))?;
        self.shared.plan.number(name).with_context(|| format!("an unknown channel: {frame}"))
    }

    /// A cursor of a frame.
    fn place_of(&self, channel: ChannelNo, value: &Value) -> anyhow::Result<Option<Cursor>> {
        value.as_str().map(|text| self.shared.plan.cursor(channel, text)).transpose()
    }

    fn moves(&mut self, channel: ChannelNo, place: Option<Cursor>) {
        if let Some(place) = place {
            self.places.insert(channel, place);
        }
    }

    /// A subscription has begun: an entry of a welcome, or an ack.
    fn started(
        &mut self,
        channel: ChannelNo,
        asked: Option<Cursor>,
        told: &Value,
    ) -> anyhow::Result<()> {
        let place = self.place_of(channel, &told["cursor"])?;
        let (reader, recovered) = (self.no, told["recovered"].as_bool());
        self.tell(Event::Start { reader, channel, asked, place, recovered });
        // Until it has read of the gap, it stands before it.
        if recovered != Some(false) {
            self.moves(channel, place);
        }
        Ok(())
    }

    /// The welcome's session.
    fn welcomed(&self, welcome: &Value) -> anyhow::Result<()> {
        let session = welcome["session"].as_str().context("a welcome without a session")?;
        self.tell(Event::Welcome { reader: self.no, session: session.to_owned() });
        self.shared.met(session);
        Ok(())
    }

    /// The place moved, though nothing was delivered.
    fn passed(&mut self, channel: ChannelNo, place: Cursor) {
        self.tell(Event::Position { reader: self.no, channel, place });
        self.moves(channel, Some(place));
    }

    /// A `message` frame.
    fn got(&mut self, frame: &Value) -> anyhow::Result<()> {
        let channel = self.channel_of(frame)?;
        if !frame["payload"][message::BURST].is_null() {
            return Ok(());
        }
        let place = self.place_of(channel, &frame["cursor"])?;
        let (reader, number) = (self.no, message::number(&frame["payload"]));
        self.tell(Event::Message { reader, channel, place, message: number });
        self.moves(channel, place);
        let id = frame["messageId"].as_str();
        // The function has no place for it in what it publishes on a live channel.
        let may_lack = id.is_none() && !self.shared.plan.is_stored(channel);
        if !may_lack && id != number.map(message::id).as_deref() {
            self.flaw(format!("a messageId is another one: {frame}"));
        }
        Ok(())
    }

    /// A gap.
    fn missed(&mut self, told: &Value) -> anyhow::Result<()> {
        let channel = self.channel_of(told)?;
        let after = self.place_of(channel, &told["after"])?;
        let place = self.place_of(channel, &told["cursor"])?;
        self.tell(Event::Gap { reader: self.no, channel, after, place });
        self.moves(channel, place);
        Ok(())
    }

    fn flaw(&self, what: String) {
        self.tell(Event::Flaw { what: format!("reader {}: {what}", self.no) });
    }

    /// Moves to the places that the one id of a stream or poll stands for.
    fn follow(&mut self, text: &str) -> anyhow::Result<()> {
        let Some(token) = StreamToken::parse(text) else { bail!("no id: {text:?}") };
        for (channel, place) in self.places.clone() {
            match token.get(&self.shared.plan.channels[channel].channel) {
                Some(said) if said == place => {}
                Some(said) => self.passed(channel, said),
                None => {
                    let name = self.shared.plan.name(channel);
                    self.flaw(format!("the id has no place on {name}, the last one is {place}"));
                }
            }
        }
        Ok(())
    }

    /// The id that stands for its places.
    fn token(&self) -> Option<String> {
        let mut token = StreamToken::default();
        self.places.values().for_each(|place| token.set(*place));
        (!token.is_empty()).then(|| token.to_string())
    }

    fn has_only_stored(&self) -> bool {
        self.channels.iter().all(|channel| self.shared.plan.is_stored(*channel))
    }

    /// Its channels in an address, with their cursors if so wanted.
    fn query(&self, with_cursors: bool) -> String {
        let mut query = String::new();
        for channel in &self.channels {
            query.push_str(&format!("&channel={}", self.shared.plan.name(*channel)));
            if let Some(place) = self.places.get(channel).filter(|_| with_cursors) {
                query.push_str(&format!("&cursor={place}"));
            }
        }
        query
    }
}
