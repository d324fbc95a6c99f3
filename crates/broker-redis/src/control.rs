//! Questions about the server that a link cannot ask itself while it is subscribed.
//!
//! They go over a small pool. A question that fails says nothing about a link.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::pool::{Connection, Pool, pool};
use crate::server::{self, Server};
use crate::settings::{Settings, Target};
use crate::wire::reason;

/// As many connections as questions that may be asked at a time; more wait.
const MAX_CONNECTIONS: usize = 2;

/// Why there is no answer.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct ControlError(String);

/// The pool.
#[derive(Clone)]
pub(crate) struct Control {
    pool: Pool,
    patience: Duration,
}

/// What the server says about itself and one of its clients.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) server: Server,
    /// How many subscriptions it counts; none when there is no such client.
    pub(crate) subscriptions: Option<usize>,
}

impl Control {
    /// Connects to nothing yet.
    pub(crate) fn new(target: &Target, settings: &Arc<Settings>) -> Self {
        let patience = settings.echo_timeout;
        Self { pool: pool(target, settings, MAX_CONNECTIONS, patience), patience }
    }

    /// By then a question has been answered.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// A connection, for who has more than one question.
    pub(crate) async fn get(&self) -> Result<Connection, ControlError> {
        self.pool.get().await.map_err(|error| ControlError(reason(error.to_string().as_bytes())))
    }

    /// What the server says about itself and the client of this id.
    pub(crate) async fn look(&self, client_id: i64) -> Result<Look, ControlError> {
        let mut connection = self.get().await?;
        let (server, replication, client): (String, String, String) = redis::pipe()
            .cmd("INFO")
            .arg("server")
            .cmd("INFO")
            .arg("replication")
            .cmd("CLIENT")
            .arg("LIST")
            .arg("ID")
            .arg(client_id)
            .query_async(&mut *connection)
            .await?;
        let subscriptions = server::subscriptions(&client);
        Ok(Look { server: Server::read(&server, &replication), subscriptions })
    }

    /// What the server says about its memory.
    pub(crate) async fn memory(&self) -> Result<String, ControlError> {
        let mut connection = self.get().await?;
        Ok(redis::cmd("INFO").arg("memory").query_async(&mut *connection).await?)
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

impl From<redis::RedisError> for ControlError {
    fn from(error: redis::RedisError) -> Self {
        Self(reason(error.to_string().as_bytes()))
    }
}
