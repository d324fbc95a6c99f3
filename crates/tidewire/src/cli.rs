//! The command line: its words and their help. What they do is elsewhere.

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::config::Flags;

/// A realtime gateway: one publish reaches every subscriber on every node
#[derive(Parser)]
#[command(name = "tidewire", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Those of `serve`, which is meant when no command is named.
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs a node (what happens when no command is named)
    Serve(Flags),
    /// Publishes one message through a running node and prints its answer
    Publish(Publish),
    /// Follows a channel of a running node; prints each message as one line of JSON
    Tail(Tail),
    /// Makes a token, signed with `auth.jwt.secret` of the configuration, for trying things out
    Token(Token),
    /// Reads the configuration as `serve` would; prints it, or what is wrong with it
    Check(Flags),
    /// Asks the admin address of a running node whether it is ready
    Health(Health),
    /// Prints docs/configuration.md
    #[command(hide = true)]
    ConfigReference,
}

#[derive(Args)]
pub(crate) struct Publish {
    /// The channel, such as news or room:42
    pub(crate) channel: String,
    /// The payload as JSON; `-` reads it from standard input; nothing is null
    pub(crate) payload: Option<String>,
    /// The name of the event; else the node's default, message
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// The message's id; sent again with the same one it is the same message
    #[arg(long, value_name = "ID")]
    pub(crate) message_id: Option<String>,
    /// The payload is text and not JSON (from standard input: without its last line break)
    #[arg(long)]
    pub(crate) text: bool,
    /// Where the node listens
    #[arg(long, default_value = "http://127.0.0.1:8000", value_parser = base_url)]
    pub(crate) url: Url,
    /// A token or an API key; @PATH reads it from a file, where process lists do not show it
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

#[derive(Args)]
pub(crate) struct Tail {
    /// The channel, such as news or room:42
    pub(crate) channel: String,
    /// Where the node listens
    #[arg(long, default_value = "http://127.0.0.1:8000", value_parser = base_url)]
    pub(crate) url: Url,
    /// A token or an API key; @PATH reads it from a file, where process lists do not show it
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

#[derive(Args)]
pub(crate) struct Token {
    /// The user
    #[arg(long, value_name = "USER")]
    pub(crate) sub: String,
    /// A channel, or a pattern as in 'room:*', that may be subscribed to; as often as needed
    #[arg(long, value_name = "PATTERN")]
    pub(crate) subscribe: Vec<String>,
    /// A channel or pattern that may be published to; as often as needed
    #[arg(long, value_name = "PATTERN")]
    pub(crate) publish: Vec<String>,
    /// A channel that streams are subscribed to at once; as often as needed
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Vec<String>,
    /// What others may know of the user, as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) info: Option<String>,
    /// For how long the token is valid
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) ttl: std::time::Duration,
    /// The configuration that holds the secret, read as `serve` would
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<std::path::PathBuf>,
}

#[derive(Args)]
pub(crate) struct Health {
    /// The configuration that names the admin address, read as `serve` would
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Where the node's admin listener is; else the configuration tells
    #[arg(long, value_parser = base_url)]
    pub(crate) url: Option<Url>,
}

/// A URL below which the paths of a node stand.
fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be such as http://127.0.0.1:8000".to_owned())?;
    if !matches!(url.scheme(), "http" | "https")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("must begin with http:// or https:// and have no query".to_owned());
    }
    Ok(url)
}
