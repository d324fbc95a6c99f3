//! How many streams each user has on all nodes: this node's claims, and what Redis grants.
//!
//! The gateway asks, in batches, through [`RedisBroker::claim`](crate::RedisBroker); the function
//! library counts. Nothing is remembered here but the name that the node is known by.

use redis::RedisError;
use thiserror::Error;
use tidewire_broker::{ClaimError, Claims, Grant, Grants};
use tokio::time::timeout;

use crate::control::{Control, ControlError};
use crate::library::{Library, is_not_found};
use crate::wire::reason;

/// Why nothing is granted.
#[derive(Debug, Error)]
enum ShareError {
    #[error("no answer in time")]
    Silent,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{}", reason(.0.to_string().as_bytes()))]
    Redis(#[from] RedisError),
    #[error("an answer that is none")]
    Answer,
}

/// What this node claims with.
pub(crate) struct Shares {
    /// Random: a node that comes back is another one, and what was granted before runs out.
    node: String,
    function: String,
}

impl Shares {
    pub(crate) fn new(library: &Library) -> Self {
        Self { node: format!("{:016x}", fastrand::u64(..)), function: library.function("claim") }
    }

    /// Asks Redis.
    pub(crate) async fn claim(
        &self,
        claims: &Claims,
        control: &Control,
        library: &Library,
    ) -> Result<Grants, ClaimError> {
        let asked = timeout(control.patience(), self.ask(claims, control)).await;
        asked.unwrap_or(Err(ShareError::Silent)).map_err(|error| {
            if let ShareError::Redis(error) = &error
                && is_not_found(&error.to_string())
            {
                library.lost();
            }
            ClaimError(error.to_string())
        })
    }

    async fn ask(&self, claims: &Claims, control: &Control) -> Result<Grants, ShareError> {
        let mut call = redis::cmd("FCALL");
        call.arg(&self.function).arg(0).arg(&self.node).arg(claims.most);
        for (user, count) in &claims.users {
            call.arg(&**user).arg(*count);
        }
        let answer: Vec<u64> = call.query_async(&mut *control.get().await?).await?;
        match answer.split_first() {
            Some((&known, grants)) if grants.len() == 2 * claims.users.len() => Ok(Grants {
                forgotten: known == 0,
                users: grants
                    .chunks_exact(2)
                    .map(|pair| Grant { granted: pair[0], elsewhere: pair[1] })
                    .collect(),
            }),
            _ => Err(ShareError::Answer),
        }
    }
}
