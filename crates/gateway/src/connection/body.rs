//! The body of an answer: what axum made, or a session's stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::http2::Open;
use crate::session::SessionBody;

/// A body, which over HTTP/2 keeps its stream counted as open.
pub(super) struct Answer {
    content: Content,
    _open: Option<Open>,
}

enum Content {
    Plain(Body),
    Session(SessionBody),
}

impl Answer {
    pub(super) const fn plain(body: Body) -> Self {
        Self { content: Content::Plain(body), _open: None }
    }

    pub(super) const fn session(body: SessionBody) -> Self {
        Self { content: Content::Session(body), _open: None }
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
        match &mut self.get_mut().content {
            Content::Plain(body) => Pin::new(body).poll_frame(cx),
            Content::Session(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|it| it.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Plain(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Plain(body) => body.size_hint(),
            Content::Session(_) => SizeHint::default(),
        }
    }
}
