//! `tidewire health`: is the node ready? For container health checks and scripts.

use std::time::Duration;

use anyhow::Context;
use reqwest::Url;

use crate::banner::reachable;
use crate::cli::Health;
use crate::config::{self, Flags, Sources};

/// A node that does not answer within this is not healthy: the commonest health checks kill
/// the asker soon after.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Prints what the node says; an error if it is not ready or not there.
pub(crate) async fn run(arguments: Health) -> anyhow::Result<()> {
    let base = match arguments.url {
        Some(url) => url,
        None => configured(arguments.config).await?,
    };
    let url = super::below(&base, &["readyz"])?;
    let client = super::client(&url).timeout(TIMEOUT).build()?;
    let asked = |error| super::no_answer(&url, error);
    let response = client.get(url.clone()).send().await.map_err(asked)?;
    let status = response.status();
    let text = response.text().await.map_err(asked)?;
    anyhow::ensure!(status.is_success(), "not ready: {}", text.trim());
    super::line(text.trim()).map(drop)
}

/// The admin address of the configuration.
async fn configured(config: Option<std::path::PathBuf>) -> anyhow::Result<Url> {
    let flags = Flags { config, ..Flags::default() };
    let admin = config::load(&Sources::of_process(flags))?.config.admin;
    let address = admin.resolve().await.with_context(|| format!("admin = {admin}"))?;
    Ok(Url::parse(&format!("http://{}", reachable(address)))?)
}
