//! How the subscriptions of a stored channel begin: by its window, where that shows it, else by a read.

use std::sync::Arc;

use tidewire_broker::{Reading, Verdict};
use tidewire_protocol::{Cursor, EntryId, Message};

use super::{Action, Begin, Start, StoredChannel};
use crate::window::{Gap, Window};
use crate::wire::Encoded;

impl StoredChannel {
    /// Begins those that can begin now.
    pub(super) fn answer(&mut self, reading: &Reading, now: u64, actions: &mut Vec<Action>) {
        let asks = std::mem::take(&mut self.asks);
        for ((lane, ticket), ask) in asks {
            let begin = self.begin_by_window(ask.start, now);
            let begin = begin.or_else(|| {
                if ask.late { None } else { self.begin_by_reading(ask.start, reading) }
            });
            match begin {
                Some(begin) => actions.push(Action::Start(lane, ticket, begin)),
                None => {
                    self.asks.insert((lane, ticket), ask);
                }
            }
        }
    }

    /// How a subscription begins, if the window can tell.
    pub(super) fn begin_by_window(&self, start: Start, now: u64) -> Option<Begin> {
        let window = self.window.as_ref()?;
        let from = |place: Cursor, recovered| {
            let backlog = window.after(place)?.cloned().collect();
            Some(Begin { place, recovered, gap: None, backlog })
        };
        // What has expired is no longer kept, though the window still holds it.
        let is_kept =
            u128::from(now.saturating_sub(window.last().id.ms)) < self.rules.ttl.as_millis();
        match start {
            Start::Present => from(window.last(), None),
            Start::Lost => Some(begin_with_gap(window, None)),
            Start::After(cursor) | Start::OnlyAfter(cursor) => {
                Some(goes_on(window, cursor, window.after(cursor)?.cloned().collect()))
            }
            Start::Last(count) if is_kept => from(window.rewind(count, 0)?, None),
            Start::Since(time) if is_kept => from(window.rewind(usize::MAX, time)?, None),
            Start::Last(_) | Start::Since(_) => None,
        }
    }

    /// How a subscription begins, by a read that was begun after it was asked for and is taken
    /// into the window.
    fn begin_by_reading(&self, start: Start, reading: &Reading) -> Option<Begin> {
        let window = self.window.as_ref()?;
        let entries = &reading.entries[..];
        let (from, recovered, after) = match start {
            // The window answers these.
            Start::Present | Start::Lost => (entries.len(), None, None),
            Start::After(cursor) | Start::OnlyAfter(cursor) => match reading.judge(cursor) {
                Verdict::GoesOn(from) => {
                    let backlog = self.backlog(window, &entries[from..], cursor.id);
                    return Some(goes_on(window, cursor, backlog));
                }
                Verdict::Gap(_) if matches!(start, Start::OnlyAfter(_)) => {
                    return Some(begin_with_gap(window, Some(cursor)));
                }
                Verdict::Gap(from) => (from, Some(false), Some(cursor)),
            },
            Start::Last(count) => (entries.len().saturating_sub(count), None, None),
            Start::Since(time) => {
                let older = |entry: &Message| entry.stored.is_none_or(|stored| stored.id.ms < time);
                (entries.partition_point(older), None, None)
            }
        };
        let chain = crate::window::last_chain(&entries[from..]);
        let first = chain.first().and_then(|entry| entry.stored);
        let place = match first {
            Some(first) => {
                let before = EntryId::before_first(reading.now);
                reading.cursor(&self.channel, first.prev.unwrap_or(before))
            }
            None => window.last(),
        };
        let gap = after.map(|after| Gap { after: Some(after), cursor: Some(place) });
        let backlog = match first {
            Some(first) => self.backlog(window, chain, first.prev.unwrap_or_default()),
            None => Vec::new(),
        };
        Some(Begin { place, recovered, gap, backlog })
    }

    /// What follows a place: these linked entries as far as the window does not hold them, then
    /// what it holds, which may be more than the read showed.
    fn backlog(&self, window: &Window, chain: &[Message], above: EntryId) -> Vec<Arc<Encoded>> {
        let base = window.base().id;
        let older = chain.iter().filter(|entry| {
            entry.stored.is_some_and(|stored| stored.id > above && stored.id <= base)
        });
        let older = older.map(|entry| Arc::new(Encoded::new(self.channel.clone(), entry.clone())));
        older.chain(window.above(above).cloned()).collect()
    }
}

/// A subscription that begins at the present, after a gap that nothing fills.
fn begin_with_gap(window: &Window, after: Option<Cursor>) -> Begin {
    let place = window.last();
    let gap = Some(Gap { after, cursor: Some(place) });
    Begin { place, recovered: Some(false), gap, backlog: Vec::new() }
}

/// A subscription that goes on after its place with these messages. Before the first message each
/// node has a name of its own for the one place: all who are there share this node's, so that a gap
/// begins where they are.
fn goes_on(window: &Window, cursor: Cursor, backlog: Vec<Arc<Encoded>>) -> Begin {
    let is_first = cursor.id.is_before_first() && backlog.is_empty();
    let place = if is_first { window.last() } else { cursor };
    Begin { place, recovered: Some(true), gap: None, backlog }
}
