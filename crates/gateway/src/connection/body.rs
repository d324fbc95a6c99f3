//! The body of an answer: what axum made, or a session's stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::http2::Open;
use crate::session::SessionBody;

/// What is handed to HTTP/2 at a time. hyper hands over a whole frame as soon as the client's window
/// has room for a byte of it, and forgets the body with the last one: in one piece, an answer would
/// wait in memory and be counted nowhere.
const PIECE_BYTES: usize = 16 << 10;

/// A body, which over HTTP/2 keeps its stream counted as open.
pub(super) struct Answer {
    content: Content,
    /// What of the last frame is still to be handed over; HTTP/2 alone gets pieces.
    rest: Bytes,
    open: Option<Open>,
}

enum Content {
    Plain(Body),
    Session(SessionBody),
}

impl Answer {
    pub(super) const fn plain(body: Body) -> Self {
        Self { content: Content::Plain(body), rest: Bytes::new(), open: None }
    }

    pub(super) const fn session(body: SessionBody) -> Self {
        Self { content: Content::Session(body), rest: Bytes::new(), open: None }
    }

    /// As long as the body lives, so does this.
    pub(super) fn counted(self, open: Open) -> Self {
        Self { open: Some(open), ..self }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { content, rest, open } = self.get_mut();
        if !rest.is_empty() {
            let piece = rest.split_to(PIECE_BYTES.min(rest.len()));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match content {
            Content::Plain(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                let frame = match frame? {
                    Ok(frame) => frame,
                    Err(error) => return Some(Err(error)),
                };
                Some(Ok(match frame.into_data() {
                    Ok(mut data) if open.is_some() && data.len() > PIECE_BYTES => {
                        *rest = data.split_off(PIECE_BYTES);
                        Frame::data(data)
                    }
                    Ok(data) => Frame::data(data),
                    Err(other) => other,
                }))
            }),
            Content::Session(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|it| it.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let ends = |body: &Body| self.rest.is_empty() && body.is_end_stream();
        matches!(&self.content, Content::Plain(body) if ends(body))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            // What was not handed over yet is known to nobody else.
            Content::Plain(_) if !self.rest.is_empty() => SizeHint::default(),
            Content::Plain(body) => body.size_hint(),
            Content::Session(_) => SizeHint::default(),
        }
    }
}
