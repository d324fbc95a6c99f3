//! Request bodies: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tidewire_protocol::Code;

use super::Problem;

/// What kind of body a publish has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
    /// `application/octet-stream`.
    Bytes,
}

impl Kind {
    /// What the headers say; parameters such as the charset do not matter.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let given = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match essence.to_ascii_lowercase().as_slice() {
            b"application/json" => Ok(Self::Json),
            b"text/plain" => Ok(Self::Text),
            b"application/octet-stream" => Ok(Self::Bytes),
            _ => Err(Problem::new(
                Code::UnsupportedType,
                "the content type must be application/json, text/plain or application/octet-stream",
            )),
        }
    }
}

/// Reads a body of at most `limit` bytes within `time`.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Code::TooLarge, format!("a body of at most {limit} bytes is allowed here"));
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "the body broke off")),
        Err(_) => {
            let detail = format!("the body did not come within {} s", time.as_secs());
            Err(Problem::new(Code::BadRequest, detail))
        }
    }
}
