//! How many streams each user has on all nodes: this node's claims, and what Redis grants.
//!
//! The gateway asks, in batches, through [`RedisBroker::claim`](crate::RedisBroker); the function
//! library counts. Nothing is remembered here but the name that the node is known by.

use redis::RedisError;
use thiserror::Error;
use tidewire_broker::{Asks, Claim, ClaimError, Claims, Grant, Grants};
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
        for Claim { user, count, answered, asks } in &claims.users {
            let answered = answered.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let asks = match asks {
                Asks::No => 0,
                Asks::Open => 1,
                Asks::Anew => 2,
            };
            call.arg(&**user).arg(*count).arg(answered).arg(asks);
        }
        let answer: Answer = call.query_async(&mut *control.get().await?).await?;
        understand(answer, claims.users.len())
    }
}

/// Whether the node was known, three numbers for each user, the users that it is asked about, a fault.
type Answer = (u64, Vec<i64>, Vec<Vec<u8>>, String);

fn understand(answer: Answer, users: usize) -> Result<Grants, ShareError> {
    let (known, numbers, asked, fault) = answer;
    if numbers.len() != 3 * users {
        return Err(ShareError::Answer);
    }
    let grant = |of: &[i64]| match *of {
        [granted, elsewhere, alive] => Some(Grant {
            // Below zero: nothing can be kept of this user.
            granted: granted.try_into().ok()?,
            elsewhere: elsewhere.try_into().ok()?,
            alive: alive.try_into().ok()?,
        }),
        _ => None,
    };
    Ok(Grants {
        forgotten: known == 0,
        users: numbers.chunks_exact(3).map(grant).collect(),
        asked: asked
            .into_iter()
            .filter_map(|name| Some(String::from_utf8(name).ok()?.into()))
            .collect(),
        fault: (!fault.is_empty()).then(|| reason(fault.as_bytes())),
    })
}
