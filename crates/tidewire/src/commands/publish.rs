//! `tidewire publish`: one message through a running node.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use reqwest::header::CONTENT_TYPE;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Usage;
use crate::cli::Publish;

/// Longer than a node takes to give up on its broker, so that its own answer is heard.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Publishes and prints the answer.
pub(crate) async fn run(arguments: Publish) -> anyhow::Result<()> {
    super::check_channel(&arguments.channel)?;
    let url = super::below(&arguments.url, &["v1", "channels", &arguments.channel, "messages"])?;
    let body = body(&arguments)?;
    let client =
        super::with_token(super::client(&url).timeout(TIMEOUT), arguments.token.as_deref())?
            .build()?;
    let asked = |error| super::no_answer(&arguments.url, error);
    let request = client.post(url).header(CONTENT_TYPE, "application/json").body(body);
    let response = request.send().await.map_err(asked)?;
    if !response.status().is_success() {
        return Err(super::problem_of(response).await);
    }
    let answer = response.text().await.map_err(asked)?;
    super::line(answer.trim()).map(drop)
}

/// The message as JSON. The payload goes as it was written: a number keeps all its digits.
fn body(arguments: &Publish) -> anyhow::Result<String> {
    let payload = match arguments.payload.as_deref() {
        Some("-") => stdin(arguments.text)?,
        Some(given) => given.to_owned(),
        None if arguments.text => return Err(Usage("--text needs a payload".to_owned()).into()),
        None => "null".to_owned(),
    };
    let payload = if arguments.text {
        Value::String(payload).to_string()
    } else {
        let raw: &RawValue = serde_json::from_str(&payload).map_err(|error| {
            Usage(format!("the payload is no JSON ({error}); --text sends it as text"))
        })?;
        raw.get().to_owned()
    };
    let mut members = vec![format!("\"payload\":{payload}")];
    for (name, value) in [("event", &arguments.event), ("messageId", &arguments.message_id)] {
        members.extend(value.as_ref().map(|value| format!("\"{name}\":{}", json!(value))));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

fn stdin(text: bool) -> anyhow::Result<String> {
    let mut input = String::new();
    std::io::stdin().lock().read_to_string(&mut input).context("standard input")?;
    if text && input.ends_with('\n') {
        input.pop();
        if input.ends_with('\r') {
            input.pop();
        }
    }
    Ok(input)
}
