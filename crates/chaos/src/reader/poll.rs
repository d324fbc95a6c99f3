//! A reader's polls: each answer begins where the one before ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tidewire_protocol::{Cursor, StreamToken};

use super::Reader;
use crate::history::Event;
use crate::http::{self, Request};
use crate::plan::ChannelNo;

/// The gateway answers within the wait and some; a poll that is lost is asked for again.
const GRACE: Duration = Duration::from_secs(5);

impl Reader {
    pub(super) async fn poll(&mut self, addr: SocketAddr) -> anyhow::Result<()> {
        let shared = self.shared.clone();
        let weary = Self::weary(&shared, self.stay());
        tokio::pin!(weary);
        if self.places.len() < self.channels.len() {
            // It has not begun everywhere: an answer would not tell where the rest begins.
            self.places.clear();
            self.token = None;
        }
        for (channel, place) in self.places.clone() {
            self.resumes_at(channel, place);
        }
        loop {
            Self::readable(&shared, self.no).await;
            let wait = self.rng.u64(..4);
            let request = self.poll_request(wait);
            let patience = Duration::from_secs(wait) + GRACE;
            let answer = tokio::select! {
                () = &mut weary => return Ok(()),
                answer = http::ask(addr, &request, patience) => answer?,
            };
            let text = String::from_utf8_lossy(&answer.body);
            if answer.status != 200 {
                if answer.status < 500 {
                    self.flaw(format!("{} was answered {text}", request.path));
                }
                bail!("{text}");
            }
            self.answered(&serde_json::from_str(&text)?)?;
            if wait == 0 {
                shared.sleep(Duration::from_millis(self.rng.u64(20..300))).await;
            }
        }
    }

    fn resumes_at(&self, channel: ChannelNo, place: Cursor) {
        let (reader, at) = (self.no, Some(place));
        self.tell(Event::Start { reader, channel, asked: at, place: at, recovered: Some(true) });
    }

    fn poll_request(&mut self, wait: u64) -> Request<'static> {
        let cursor = match (&self.channels[..], self.token.take()) {
            (_, Some(token)) => Some(token),
            ([only], None) => self.places.get(only).map(Cursor::to_string),
            (_, None) => self.token(),
        };
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/v1/poll?wait={wait}{}{cursor}", self.query(false));
        Request { method: "GET", path, headers: vec![], body: vec![] }
    }

    /// Messages and gaps stand in lists of their own: a gap comes where its `after` is reached.
    fn answered(&mut self, body: &Value) -> anyhow::Result<()> {
        let cursor = body["cursor"].as_str().context("no cursor")?;
        if self.places.is_empty() {
            self.begins_at(cursor)?;
            return Ok(());
        }
        let mut gaps: HashMap<ChannelNo, Vec<Value>> = HashMap::new();
        for gap in body["gaps"].as_array().into_iter().flatten() {
            gaps.entry(self.channel_of(gap)?).or_default().push(gap.clone());
        }
        for message in body["messages"].as_array().context("no messages")? {
            let channel = self.channel_of(message)?;
            self.gaps_here(channel, &mut gaps)?;
            self.got(message)?;
        }
        let channels: Vec<_> = gaps.keys().copied().collect();
        for channel in channels {
            self.gaps_here(channel, &mut gaps)?;
            for rest in gaps.remove(&channel).unwrap_or_default() {
                self.missed(&rest)?;
            }
        }
        if let [only] = &self.channels[..] {
            let said = self.shared.plan.cursor(*only, cursor)?;
            if self.places.get(only) != Some(&said) {
                self.passed(*only, said);
            }
        } else {
            self.follow(cursor)?;
            self.token = Some(cursor.to_owned());
        }
        Ok(())
    }

    /// Tells the gaps that begin where the reader is.
    fn gaps_here(
        &mut self,
        channel: ChannelNo,
        gaps: &mut HashMap<ChannelNo, Vec<Value>>,
    ) -> anyhow::Result<()> {
        let Some(waiting) = gaps.get_mut(&channel) else { return Ok(()) };
        loop {
            let place = self.places.get(&channel).map(Cursor::to_string);
            let here = |gap: &Value| gap["after"].as_str() == place.as_deref();
            let Some(at) = waiting.iter().position(here) else { return Ok(()) };
            let gap = waiting.remove(at);
            self.missed(&gap)?;
        }
    }

    /// The first answer, which tells where it begins.
    fn begins_at(&mut self, cursor: &str) -> anyhow::Result<()> {
        let token = match &self.channels[..] {
            [only] => StreamToken::of(self.shared.plan.cursor(*only, cursor)?),
            _ => StreamToken::parse(cursor).with_context(|| format!("no id: {cursor:?}"))?,
        };
        for channel in self.channels.clone() {
            let place = token.get(&self.shared.plan.channels[channel].channel);
            let place = place.context("a poll's cursor lacks a channel")?;
            let reader = self.no;
            let (asked, recovered) = (None, None);
            self.tell(Event::Start { reader, channel, asked, place: Some(place), recovered });
            self.moves(channel, Some(place));
        }
        if self.channels.len() > 1 {
            self.token = Some(cursor.to_owned());
        }
        Ok(())
    }
}
