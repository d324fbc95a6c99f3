//! Who was not meant to get a message: `exclude` names a session, and holds while that lives. Its
//! client may get the message after a resume, which is another session, or not.

use std::collections::{HashMap, HashSet};

use super::{Rule, Verdict};
use crate::history::{Event, MessageNo, ReaderNo, Record};

/// The messages that are not owed to a reader.
#[derive(Default)]
pub(super) struct Excluded {
    pairs: HashSet<(ReaderNo, MessageNo)>,
}

impl Excluded {
    /// Collects them, and notes what was delivered to a session that it excludes.
    pub(super) fn gather(records: &[Record], verdict: &mut Verdict) -> Self {
        let mut readers: HashMap<&str, ReaderNo> = HashMap::new();
        let mut sessions: HashMap<ReaderNo, &str> = HashMap::new();
        let mut excludes: HashMap<MessageNo, &str> = HashMap::new();
        for (number, record) in records.iter().enumerate() {
            match &record.event {
                Event::Welcome { reader, session } => {
                    readers.insert(session, *reader);
                    sessions.insert(*reader, session);
                }
                Event::Close { reader, .. } => {
                    sessions.remove(reader);
                }
                Event::Attempt { message, exclude: Some(session), .. } => {
                    excludes.insert(*message, session);
                }
                Event::Message { reader, message: Some(message), .. } => {
                    let session = sessions.get(reader);
                    if session.is_some() && session == excludes.get(message) {
                        let what = format!("reader {reader} gets {message}, which excludes it");
                        verdict.note(Rule::Excluded, number, what);
                    }
                }
                _ => {}
            }
        }
        let pair = |(message, session)| Some((*readers.get(session)?, message));
        Self { pairs: excludes.into_iter().filter_map(pair).collect() }
    }

    /// Whether the message is owed to the reader.
    pub(super) fn is_owed(&self, reader: ReaderNo, message: MessageNo) -> bool {
        !self.pairs.contains(&(reader, message))
    }
}
