//! `avalanche` and `jitter`: clients that come back with the cursor of their last message, and
//! whether they get what they missed.
//!
//! They speak Tidewire's own protocol, as only its clients know where they were.

mod avalanche;
mod client;
mod field;
mod jitter;
mod redis;

pub(crate) use avalanche::run as avalanche;
pub(crate) use jitter::run as jitter;
