//! The body of an answer: what axum made, or a session's stream.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tidewire_hub::{Unread, UnreadNote};

use super::http2::Open;
use crate::session::SessionBody;

/// What is handed to hyper at a time, and what it may hold of each stream of HTTP/2. It takes a whole frame
/// as soon as there is room for a byte of it, and forgets the body with the last one: in one piece, an answer
/// would wait in memory and be counted nowhere.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// A body, which over HTTP/2 keeps its stream counted as open. What of it is still to be handed over counts as
/// unread.
pub(super) struct Answer {
    content: Content,
    /// What of the last frame is still to be handed over.
    rest: Bytes,
    unread: UnreadNote,
    _open: Option<Open>,
}

enum Content {
    Plain(Body),
    Session(SessionBody),
}

impl Answer {
    pub(super) fn plain(body: Body, unread: &Rc<Unread>) -> Self {
        Self::new(Content::Plain(body), unread)
    }

    pub(super) fn session(body: SessionBody, unread: &Rc<Unread>) -> Self {
        Self::new(Content::Session(body), unread)
    }

    fn new(content: Content, unread: &Rc<Unread>) -> Self {
        let mut this = Self { content, rest: Bytes::new(), unread: unread.note(), _open: None };
        this.count();
        this
    }

    /// Notes what is still to be handed over; what is as small as a piece costs no note.
    fn count(&mut self) {
        let of_body = match &self.content {
            // An event stream's is in its outbox.
            Content::Session(_) => 0,
            Content::Plain(body) => usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX),
        };
        let left = self.rest.len().saturating_add(of_body);
        self.unread.set(if left > PIECE_BYTES { left } else { 0 });
    }

    /// A frame, or its beginning if that is more than a piece.
    fn cut(&mut self, mut data: Bytes) -> Bytes {
        if data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        data
    }

    /// As long as the body lives, so does this.
    pub(super) fn counted(self, open: Open) -> Self {
        Self { _open: Some(open), ..self }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            let piece = this.cut(rest);
            this.count();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let frame = match &mut this.content {
            Content::Plain(body) => ready!(Pin::new(body).poll_frame(cx)),
            Content::Session(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|never| match never {})),
        };
        let frame = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(Ok(data))) => Some(Ok(Frame::data(this.cut(data)))),
            Some(Ok(Err(other))) => Some(Ok(other)),
        };
        this.count();
        Poll::Ready(frame)
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
