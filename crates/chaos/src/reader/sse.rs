//! A reader's session over Server-Sent Events: as an `EventSource`, with the last id.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde_json::Value;
use tidewire_protocol::Cursor;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{IDLE, Reader};
use crate::history::Event;
use crate::http::{self, Request};
use crate::plan::ChannelNo;

/// Ids that no stream ever had, which a client sends all the same.
const GARBAGE: [&str; 4] = ["garbage!", "0", "1732224000123-0.00000000", "na\u{ef}ve"];

/// An event as a browser would fire it; `data` is none where only the id moved.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    event: String,
    data: Option<String>,
    id: Option<String>,
}

impl Reader {
    pub(super) async fn stream(&mut self, addr: SocketAddr) -> anyhow::Result<()> {
        let (request, asked) = self.stream_request();
        let open = http::open(addr, &request);
        let (mut stream, status, _) = timeout(IDLE, open).await.context("no answer")??;
        if status != 200 {
            if status < 500 {
                self.flaw(format!("{} was answered {status}", request.path));
            }
            bail!("status {status}");
        }
        let shared = self.shared.clone();
        let weary = Self::weary(&shared, self.stay());
        tokio::pin!(weary);
        let (mut pending, mut welcomed) = (vec![], false);
        loop {
            while let Some(block) = take_block(&mut pending)? {
                self.fired(block, &asked, &mut welcomed)?;
            }
            Self::readable(&shared, self.no).await;
            tokio::select! {
                () = &mut weary => return Ok(()),
                read = timeout(IDLE, fill(&mut stream, &mut pending)) => read.context("silence")??,
            }
        }
    }

    /// The request, and the places that it names.
    fn stream_request(&mut self) -> (Request<'static>, HashMap<ChannelNo, Cursor>) {
        let mut headers = vec![("Accept", "text/event-stream".to_owned())];
        let token = self.token.take().or_else(|| self.token());
        let way = self.rng.u8(..4);
        let rest = match (token, way) {
            (Some(_), _) if self.rng.u8(..16) == 0 => {
                // It has forgotten where it was, and is owed a gap.
                self.places.clear();
                self.tell(Event::Garbage { reader: self.no });
                let garbage = GARBAGE[self.rng.usize(..GARBAGE.len())];
                headers.push(("Last-Event-ID", garbage.to_owned()));
                self.query(false)
            }
            (Some(token), 0) => format!("{}&lastEventId={token}", self.query(false)),
            (Some(_), 1) => self.query(true),
            (Some(token), _) => {
                headers.push(("Last-Event-ID", token));
                self.query(false)
            }
            (None, 0) if self.has_only_stored() => format!("{}&rewind=7", self.query(false)),
            (None, _) => self.query(false),
        };
        let path = format!("/v1/sse?envelope=1{rest}");
        (Request { method: "GET", path, headers, body: vec![] }, self.places.clone())
    }

    fn fired(
        &mut self,
        block: Block,
        asked: &HashMap<ChannelNo, Cursor>,
        welcomed: &mut bool,
    ) -> anyhow::Result<()> {
        if let Some(data) = &block.data {
            let data: Value = serde_json::from_str(data).with_context(|| format!("{block:?}"))?;
            match block.event.as_str() {
                "tidewire:welcome" => {
                    *welcomed = true;
                    self.welcomed(&data)?;
                    for told in data["channels"].as_array().context("no channels")? {
                        let channel = self.channel_of(told)?;
                        self.started(channel, asked.get(&channel).copied(), told)?;
                    }
                }
                "tidewire:gap" => self.missed(&data)?,
                "tidewire:shutdown" => bail!("told to leave"),
                "tidewire:denied" => bail!("denied: {data}"),
                _ => self.got(&data)?,
            }
        }
        if let (Some(id), true) = (block.id, *welcomed) {
            self.follow(&id)?;
            self.token = Some(id);
        }
        Ok(())
    }
}

async fn fill(stream: &mut BufReader<TcpStream>, pending: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(pending).await? == 0 {
        bail!("the stream ended");
    }
    Ok(())
}

fn take_block(pending: &mut Vec<u8>) -> anyhow::Result<Option<Block>> {
    let Some(end) = pending.windows(2).position(|two| two == b"\n\n") else { return Ok(None) };
    let text = String::from_utf8(pending.drain(..end + 2).collect())?;
    let mut block = Block::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "event" => block.event = value,
            "id" => block.id = Some(value),
            "data" => match &mut block.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => block.data = Some(value),
            },
            _ => {}
        }
    }
    Ok(Some(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_whole() {
        let mut pending = b"retry: 5\n\nid: a\nevent: e\ndata: 1\ndata: 2\n\nid: b\n".to_vec();
        assert_eq!(take_block(&mut pending).unwrap(), Some(Block::default()));
        let block = take_block(&mut pending).unwrap().unwrap();
        let data = Some("1\n2".to_owned());
        assert_eq!(block, Block { event: "e".into(), data, id: Some("a".into()) });
        assert_eq!(take_block(&mut pending).unwrap(), None);
        pending.push(b'\n');
        assert_eq!(take_block(&mut pending).unwrap().unwrap().id.as_deref(), Some("b"));
    }
}
