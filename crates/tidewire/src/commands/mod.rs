//! The commands other than `serve`: small clients of a running node, and the check of a
//! configuration. They share how a node's URL is made and how its errors are told.

pub(crate) mod check;
pub(crate) mod health;
pub(crate) mod publish;
pub(crate) mod tail;
pub(crate) mod token;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, ClientBuilder, Response, Url};

/// A mistake of the caller: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// A client for a node at this URL. A proxy that the environment names is for the world outside:
/// a node on this machine is asked directly.
fn client(url: &Url) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5));
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if loopback || host == "localhost" { builder.no_proxy() } else { builder }
}

/// Has every request carry the credential that `--token` names: itself, or `@` and its file.
fn with_token(builder: ClientBuilder, token: Option<&str>) -> anyhow::Result<ClientBuilder> {
    let Some(token) = token else { return Ok(builder) };
    let read = match token.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("--token @{path}"))?,
        None => token.to_owned(),
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", read.trim()))
        .map_err(|_| Usage("--token must be visible ASCII".to_owned()))?;
    value.set_sensitive(true);
    Ok(builder.default_headers([(AUTHORIZATION, value)].into_iter().collect()))
}

/// The URL of a path below a base, each segment percent-encoded (a channel may hold `/`).
fn below(base: &Url, segments: &[&str]) -> anyhow::Result<Url> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| Usage(format!("{base} cannot have a path")))?
        .pop_if_empty()
        .extend(segments);
    Ok(url)
}

/// Finds at once what would make a URL of another meaning; the node judges the rest.
fn check_channel(channel: &str) -> Result<(), Usage> {
    if matches!(channel, "" | "." | "..") {
        return Err(Usage(format!("\"{channel}\" is no name of a channel")));
    }
    Ok(())
}

/// What an answer that is no success says: the problem's code and message if it has them.
async fn problem_of(response: Response) -> anyhow::Error {
    const MOST: usize = 500;
    let status = response.status();
    let body = response.text().await.unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let word = |name: &str| problem.get(name).and_then(|value| value.as_str());
    let message = word("message").or(word("detail")).or(word("title"));
    match (word("code"), message) {
        (Some(code), Some(message)) => match word("messageId") {
            // With it the same message can be sent again and is still delivered once.
            Some(id) => anyhow::anyhow!("{code}: {message} (messageId {id})"),
            None => anyhow::anyhow!("{code}: {message}"),
        },
        (Some(code), None) => anyhow::anyhow!("{code} (HTTP {status})"),
        _ => {
            let start: String = body.trim().chars().take(MOST).collect();
            anyhow::anyhow!("HTTP {status} {start}")
        }
    }
}

/// Why no answer came: the innermost cause, as the layers above it only say that there was one.
fn no_answer(url: &Url, error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow::anyhow!("no answer from {}: {}", url.origin().ascii_serialization(), error.root_cause())
}

/// Writes a line to standard output at once. False: nobody reads any more (`tidewire tail news |
/// head -1`), which is a reason to end and no fault.
fn line(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output"),
    }
}
