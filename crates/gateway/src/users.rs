//! How many streams each user has on this node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidewire_auth::Identity;

use crate::address::TooMany;

/// The streams of every user that has any.
#[derive(Debug)]
pub(crate) struct Users {
    /// Absent: no limit, and nothing is counted.
    most: Option<usize>,
    /// Locked for a look-up.
    counts: Mutex<HashMap<Box<str>, usize>>,
}

/// One of a user's streams; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct UserPlace {
    users: Arc<Users>,
    user: Box<str>,
}

impl Users {
    pub(crate) fn new(most: Option<usize>) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// A place for one more stream; none where it is not counted: nobody has logged in, or a
    /// backend has.
    pub(crate) fn place(self: &Arc<Self>, who: &Identity) -> Result<Option<UserPlace>, TooMany> {
        let (Some(most), Some(user)) = (self.most, who.user()) else { return Ok(None) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(user.into()).or_insert(0);
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(UserPlace { users: self.clone(), user: user.into() }))
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut counts = self.users.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}
