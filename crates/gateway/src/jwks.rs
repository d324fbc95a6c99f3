//! The keys of an identity provider, fetched by URL (RFC 7517): at the start, at a steady pace, and
//! when a token names a key that is not known, at a bounded rate. While the provider is away the
//! last good keys stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use reqwest::{Client, Url};
use tidewire_auth::{Authenticator, KeySet};
use tokio::sync::{Notify, watch};

use crate::outgoing;

/// The largest document.
const MAX_BYTES: usize = 256 << 10;
/// From the connection's begin to the document's end.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The least time between the end of a fetch and the begin of one that a token asks for: whoever
/// makes tokens up must not make this node a burden to the provider.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// How long a login waits for newer keys.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts while it fails: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where keys come from.
#[derive(Debug, Clone)]
pub struct JwksSettings {
    /// The document's address, http or https.
    pub url: String,
    /// How often it is fetched when nothing asks for it.
    pub refresh: Duration,
}

/// What a fetching task and who waits for it share.
pub(crate) struct Renewal {
    wanted: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    /// When the last one ended, in ms since `began`; 0: none has.
    last: AtomicU64,
    began: Instant,
    client: Client,
    url: Url,
    refresh: Duration,
    fetched: Counter,
    failed: Counter,
}

/// Why the keys cannot be fetched. Told in the log, so without the URL's query.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("{0}")]
    Keys(#[from] tidewire_auth::KeyError),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl Renewal {
    /// A renewal that nobody runs yet.
    pub(crate) fn new(settings: &JwksSettings) -> Result<Self, String> {
        let url = Url::parse(&settings.url).map_err(|error| error.to_string())?;
        let client = outgoing::client(&url).timeout(TIMEOUT);
        let of =
            |outcome: &'static str| counter!("tidewire_jwks_fetches_total", "outcome" => outcome);
        Ok(Self {
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            last: AtomicU64::new(0),
            began: Instant::now(),
            client: client.build().map_err(|error| error.to_string())?,
            url,
            refresh: settings.refresh,
            fetched: of("ok"),
            failed: of("error"),
        })
    }

    /// Asks for newer keys and waits a while for them; false at once if they were fetched just now.
    pub(crate) async fn renewed(&self) -> bool {
        let mut ended = self.ended.subscribe();
        if self.since_last().is_some_and(|since| since < MIN_PAUSE) {
            return false;
        }
        self.wanted.notify_one();
        tokio::time::timeout(PATIENCE, ended.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Fetches for ever.
    pub(crate) async fn run(self: Arc<Self>, authenticator: Arc<Authenticator>) {
        let mut pause = RETRY.0;
        let mut failing = false;
        loop {
            match self.fetch().await {
                Ok(keys) => {
                    self.fetched.increment(1);
                    if failing {
                        tracing::info!(
                            keys = keys.len(),
                            "keys of auth.jwt.jwks_url are here again"
                        );
                    }
                    (failing, pause) = (false, RETRY.0);
                    if let Some(jwt) = authenticator.jwt() {
                        jwt.bring(keys);
                    }
                }
                Err(error) => {
                    self.failed.increment(1);
                    // Once for each time that it goes away.
                    if !failing {
                        tracing::warn!(%error, "no keys from auth.jwt.jwks_url; the last ones stay");
                    }
                    failing = true;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
            let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now.max(1), Ordering::Relaxed);
            self.ended.send_modify(|ended| *ended += 1);
            self.rest(if failing { pause } else { self.refresh }).await;
        }
    }

    /// Waits for so long, or until somebody asks who may.
    async fn rest(&self, time: Duration) {
        let asked = async {
            loop {
                self.wanted.notified().await;
                // One that asked while the last fetch was under way has its answer.
                if self.since_last().is_none_or(|since| since >= MIN_PAUSE) {
                    return;
                }
            }
        };
        // Whichever is first.
        let _ = tokio::time::timeout(time, asked).await;
    }

    fn since_last(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| self.began.elapsed().saturating_sub(Duration::from_millis(last)))
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(KeySet::of_jwks(&document)?)
    }
}
