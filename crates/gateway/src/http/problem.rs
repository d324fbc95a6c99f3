//! Errors over HTTP: `application/problem+json` (RFC 9457) with the protocol's code.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode, Uri};
use serde_json::json;
use tidewire_broker::PublishError;
use tidewire_protocol::{BodyError, ChannelError, Code, MessageId};

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    message_id: Option<MessageId>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The code of an answer, for whoever counts it on the way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered(pub(crate) Code);

impl Problem {
    /// An answer with that code, saying what was wrong and what is allowed.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), message_id: None, header: None }
    }

    /// Its code.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// With one more header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// A publish that was not acknowledged: the id with which to send it again.
    pub(crate) fn of_publish(error: &PublishError, message_id: MessageId) -> Self {
        Self::new(error.code(), error.to_string()).with_message_id(Some(message_id))
    }

    /// With the id of the message that it is about, if it has one.
    pub(crate) fn with_message_id(self, message_id: Option<MessageId>) -> Self {
        Self { message_id, ..self }
    }
}

impl From<ChannelError> for Problem {
    fn from(error: ChannelError) -> Self {
        Self::new(Code::BadChannel, error.to_string())
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let problem = Self::new(error.code, error.message);
        match error.code {
            // RFC 9110, section 11.6.1.
            Code::Unauthorized => {
                let challenge = HeaderValue::from_static(r#"Bearer realm="tidewire""#);
                problem.with_header(WWW_AUTHENTICATE, challenge)
            }
            Code::TooFast => problem.with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Some(message_id) = &self.message_id {
            body["messageId"] = message_id.as_str().into();
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response.extensions_mut().insert(Answered(self.code));
        response
    }
}

pub(crate) async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Code::NotFound, format!("there is nothing at {path}"))
}

pub(crate) async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{method} is not allowed here; see Allow"))
}
