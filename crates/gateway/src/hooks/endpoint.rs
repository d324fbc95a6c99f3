//! One hook: its turns, its breaker, and the request itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use tidewire_protocol::{BodyError, Code, Hook, HookAnswer};
use tokio::sync::Semaphore;

use super::HookSettings;
use super::breaker::{Breaker, Change};
use super::sign::{self, sign};
use crate::outgoing;

/// How long a connection may be idle before it is not used again: shorter than servers keep theirs
/// (Node: 5 s), since a request that meets a connection's end cannot be sent again.
const IDLE: Duration = Duration::from_secs(4);
/// Pauses before it is tried again, where nothing was sent.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// What an answer may have besides its payload and its result, in bytes.
const MORE_BYTES: usize = 4 << 10;
/// At most one line in this time about answers that are none.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// One hook of the application.
pub(super) struct Endpoint {
    hook: Hook,
    client: Client,
    url: Url,
    settings: HookSettings,
    value_bytes: usize,
    turns: Semaphore,
    breaker: Breaker,
    logged: Mutex<Option<Instant>>,
    outcomes: [Counter; Outcome::ALL.len()],
    took: Histogram,
    is_open: Gauge,
}

/// How a question ended, as operators count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Yes.
    Ok,
    /// No.
    Refused,
    /// It was answered with what is no answer; whether it was acted on, a status may say.
    Bad,
    /// There is nobody at the address; nothing was sent.
    Unreachable,
    /// The answer did not come in time.
    TimedOut,
    /// The connection broke before the answer had come.
    Broken,
    /// Too many others were waiting; nothing was sent.
    Busy,
    /// The circuit is open; nothing was sent.
    Open,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Refused,
        Self::Bad,
        Self::Unreachable,
        Self::TimedOut,
        Self::Broken,
        Self::Busy,
        Self::Open,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Bad => "bad_answer",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Broken => "broken",
            Self::Busy => "busy",
            Self::Open => "open",
        }
    }
}

/// No answer, and why, for the log; without the address, which may hold a secret.
struct Failure {
    outcome: Outcome,
    why: String,
    /// A sign that the application is down, and no fault of this one question.
    is_down: bool,
    /// Nothing was done: the question was not sent, or was turned away.
    is_undone: bool,
}

impl Failure {
    fn of(error: reqwest::Error) -> Self {
        let outcome = match &error {
            error if error.is_connect() => Outcome::Unreachable,
            error if error.is_timeout() => Outcome::TimedOut,
            _ => Outcome::Broken,
        };
        let is_undone = outcome == Outcome::Unreachable;
        Self { outcome, why: error.without_url().to_string(), is_down: true, is_undone }
    }

    fn bad(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Bad, why: why.into(), is_down: false, is_undone: false }
    }

    /// By a status that is neither yes nor no.
    fn status(status: StatusCode, headers: &HeaderMap) -> Self {
        Self {
            outcome: Outcome::Bad,
            why: format!("status {}", status.as_u16()),
            is_down: matches!(status.as_u16(), 502..=504),
            // A 4xx says that the request was not carried out (RFC 9110, 15.5). A 5xx, or an answer
            // that is none, may come from halfway through, a 502 or 504 from a proxy that has passed
            // the request on. Only who says when to come back (a 503, 15.6.4) has turned it away.
            is_undone: status.is_client_error()
                || (status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(RETRY_AFTER)),
        }
    }
}

impl Endpoint {
    /// Of the hook at that address. Values in its answers have at most so many bytes.
    pub(super) fn new(
        hook: Hook,
        url: &str,
        settings: HookSettings,
        value_bytes: usize,
    ) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        let client = outgoing::client(&url).pool_idle_timeout(IDLE).build();
        let name = hook.as_str();
        let turns = settings.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            hook,
            client: client.map_err(|error| error.to_string())?,
            url,
            settings,
            value_bytes,
            turns: Semaphore::new(turns),
            breaker: Breaker::new(),
            logged: Mutex::default(),
            outcomes: Outcome::ALL.map(|outcome| {
                let outcome = outcome.as_str();
                counter!("tidewire_hook_requests_total", "hook" => name, "outcome" => outcome)
            }),
            took: histogram!("tidewire_hook_seconds", "hook" => name),
            is_open: gauge!("tidewire_hook_open", "hook" => name),
        })
    }

    /// Asks, and waits for the answer: at most the time-out for a turn, and once more for the
    /// answer.
    pub(super) async fn ask(self: Arc<Self>, body: Bytes) -> Result<HookAnswer, BodyError> {
        let turn = tokio::time::timeout(self.settings.timeout, self.turns.acquire()).await;
        let Ok(_turn) = turn else {
            return Err(self.failed(Outcome::Busy, true));
        };
        let Some(leave) = self.breaker.leave(Instant::now()) else {
            return Err(self.failed(Outcome::Open, true));
        };
        let began = Instant::now();
        let answer = tokio::time::timeout(self.settings.timeout, self.send(&body)).await;
        let answer = answer.unwrap_or_else(|_| {
            let why = format!("no answer within {:?}", self.settings.timeout);
            Err(Failure { outcome: Outcome::TimedOut, why, is_down: true, is_undone: false })
        });
        self.took.record(began.elapsed());
        let change = leave.tell(!answer.as_ref().is_err_and(|it| it.is_down), Instant::now());
        self.note(change, answer.as_ref().err());
        match answer {
            Ok(answer) => match answer.refusal {
                None => {
                    self.count(Outcome::Ok);
                    Ok(answer)
                }
                Some((code, message)) => {
                    self.count(Outcome::Refused);
                    Err(BodyError { code, message })
                }
            },
            Err(failure) => Err(self.failed(failure.outcome, failure.is_undone)),
        }
    }

    /// Sends it, again only if it certainly was not sent.
    async fn send(&self, body: &Bytes) -> Result<HookAnswer, Failure> {
        let mut pauses = RETRIES.into_iter();
        loop {
            let signature = sign(&self.settings.secrets, tidewire_auth::now(), body);
            let request = self
                .client
                .post(self.url.clone())
                .header(CONTENT_TYPE, "application/json")
                .header(sign::HEADER, signature)
                .body(body.clone());
            let failure = match request.send().await {
                Ok(response) => return self.read(response).await,
                Err(error) => Failure::of(error),
            };
            match pauses.next().filter(|_| failure.outcome == Outcome::Unreachable) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failure),
            }
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<HookAnswer, Failure> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let most = 2 * self.value_bytes + MORE_BYTES;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
            if body.len() + chunk.len() > most {
                return Err(Failure::bad(format!("an answer of more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let body = Bytes::from(body);
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => {}
            StatusCode::FORBIDDEN => {
                let refusal = Some(HookAnswer::forbidden(&body));
                return Ok(HookAnswer { refusal, ..HookAnswer::default() });
            }
            _ => return Err(Failure::status(status, &headers)),
        }
        let answer = HookAnswer::parse(self.hook, &body).map_err(Failure::bad)?;
        for (name, value) in [("payload", &answer.payload), ("result", &answer.result)] {
            if value.as_ref().is_some_and(|value| value.len() > self.value_bytes) {
                let most = self.value_bytes;
                return Err(Failure::bad(format!("'{name}' has more than {most} bytes")));
            }
        }
        Ok(answer)
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// What the client is told. A question that changes nothing may be asked again, whatever became
    /// of it; one that does, only if nothing was done.
    fn failed(&self, outcome: Outcome, is_undone: bool) -> BodyError {
        self.count(outcome);
        let has_effect = matches!(self.hook, Hook::Publish | Hook::Rpc);
        let (code, message) = match outcome {
            _ if has_effect && !is_undone => {
                (Code::Timeout, "the application has not answered; the outcome is unknown")
            }
            Outcome::Busy => (Code::Unavailable, "the application is busy; try again"),
            _ => (Code::Unavailable, "the application does not answer; try again"),
        };
        BodyError { code, message: message.to_owned() }
    }

    /// One line when the circuit opens and closes, and now and then about bad answers.
    fn note(&self, change: Change, failure: Option<&Failure>) {
        let hook = self.hook.as_str();
        let why = failure.map_or("", |failure| failure.why.as_str());
        match change {
            Change::Opened => {
                self.is_open.set(1.0);
                tracing::warn!(hook, why, "the hook is down; it is asked again now and then");
            }
            Change::Closed => {
                self.is_open.set(0.0);
                tracing::info!(hook, "the hook is up again");
            }
            Change::None if failure.is_some() && self.may_log() => {
                tracing::warn!(hook, why, "no answer of the hook");
            }
            Change::None => {}
        }
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }
}
