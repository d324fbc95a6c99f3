//! How many streams a user has on all nodes together: what a node claims, and what it is granted; and
//! how nodes find out which of them are alive.

use std::pin::Pin;

use thiserror::Error;

/// What a node claims. All that it does not name stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// How many streams a user may have on all nodes.
    pub most: u64,
    /// One for each user.
    pub users: Vec<Claim>,
}

/// What a node claims for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose streams they are.
    pub user: Box<str>,
    /// How many there are on this node.
    pub count: u64,
    /// How many of them were found alive, when this node had been asked ([`Grants::asked`]): told once.
    pub answered: Option<u64>,
    /// Whether the other nodes are asked which of theirs are alive.
    pub asks: Asks,
}

/// Whether other nodes are asked which streams of a user are alive. One that has answered is not asked
/// again. More than may be granted are always asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// There is no need.
    No,
    /// Those that have not answered yet.
    Open,
    /// All: what was answered before may be true no more.
    Anew,
}

/// What is granted for claims, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Nothing was known of this node any more: it must claim all its users anew.
    pub forgotten: bool,
    /// One for each user; none for one of whom nothing can be kept.
    pub users: Vec<Option<Grant>>,
    /// Users whose streams on this node are to be looked at: which of them are alive?
    pub asked: Vec<Box<str>>,
    /// Why nothing can be kept of some.
    pub fault: Option<String>,
}

/// What is granted for one user. Never is more granted on all nodes that are there than one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To this node: at most what it claimed.
    pub granted: u64,
    /// To the others.
    pub elsewhere: u64,
    /// How many of those were found alive since it was asked about them.
    pub alive: u64,
}

/// Nobody knows what is granted, for this reason: a node goes on by what it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ClaimError(pub String);

/// What becomes of claims.
pub type ClaimReceipt = Pin<Box<dyn Future<Output = Result<Grants, ClaimError>> + Send>>;
