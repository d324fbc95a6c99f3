//! How many streams a user has on all nodes together: what a node claims, and what it is granted.

use std::pin::Pin;

use thiserror::Error;

/// What a node claims. All that it does not name stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// How many streams a user may have on all nodes.
    pub most: u64,
    /// Users, each with how many it has on this node.
    pub users: Vec<(Box<str>, u64)>,
}

/// What is granted for claims, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Nothing was known of this node any more: it must claim all its users anew.
    pub forgotten: bool,
    /// One for each user.
    pub users: Vec<Grant>,
}

/// What is granted for one user. Never is more granted on all nodes that are there than one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To this node: at most what it claimed.
    pub granted: u64,
    /// To the others.
    pub elsewhere: u64,
}

/// Nobody knows what is granted, for this reason: a node goes on by what it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ClaimError(pub String);

/// What becomes of claims.
pub type ClaimReceipt = Pin<Box<dyn Future<Output = Result<Grants, ClaimError>> + Send>>;
