//! A stored channel against a model of everything that can happen to it.
//!
//! The model has a Redis (a log that is trimmed, flushed, rolled back, evicted, expired), a link
//! that loses, repeats, swaps and breaks, reads that are begun at one moment and arrive at another,
//! and subscribers that come, go and come back with their cursor. What it drives is the real code:
//! [`StoredChannel`] with its window. After every step each subscriber's record is checked against
//! what was published: in order, once, and whatever is missing was told as a gap before anything
//! later.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidewire_broker::{Query, Reading};
use tidewire_hub::{Action, Begin, Encoded, Gap, Start, StoredChannel, Ticket, WindowLimits};
use tidewire_protocol::{
    Channel, Cursor, EntryId, Event, Incarnation, Message, NamespaceRules, Payload, Stored,
    Timestamp,
};

#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// Hand the node the next frame of the link.
    Deliver,
    /// The next frame is lost without a trace.
    Lose,
    /// The next frame comes twice.
    Repeat,
    /// The next two frames change places.
    Swap,
    Break,
    Link,
    /// Redis executes the read that was asked for.
    Execute,
    /// Its answer arrives.
    Answer,
    Trim(usize),
    /// The messages expire; the last id stays.
    Expire,
    /// The channel's keys are thrown away for want of memory.
    Evict,
    Flush,
    /// Redis restarts with all its data.
    Restart,
    /// Redis restarts from a snapshot that lacks the last messages.
    Rollback(usize),
    Come(usize, bool),
    Rewind(usize, usize),
    Leave(usize),
    Elsewhere,
    /// The node needs the window's memory for others.
    Squeeze(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..4_usize;
    let step = prop_oneof![
        8 => Just(Step::Publish),
        10 => Just(Step::Deliver),
        1 => Just(Step::Lose),
        1 => Just(Step::Repeat),
        1 => Just(Step::Swap),
        1 => Just(Step::Break),
        3 => Just(Step::Link),
        8 => Just(Step::Execute),
        8 => Just(Step::Answer),
        1 => (1..8_usize).prop_map(Step::Trim),
        1 => Just(Step::Expire),
        1 => Just(Step::Evict),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => (1..4_usize).prop_map(Step::Rollback),
        5 => (who.clone(), any::<bool>()).prop_map(|(who, anew)| Step::Come(who, anew)),
        1 => (who.clone(), 1..8_usize).prop_map(|(who, count)| Step::Rewind(who, count)),
        3 => who.prop_map(Step::Leave),
        1 => Just(Step::Elsewhere),
        // A message weighs some 770 bytes.
        2 => (0..8_000_usize).prop_map(Step::Squeeze),
    ];
    prop::collection::vec(step, 1..120)
}

/// The server, as far as one channel goes.
struct Redis {
    /// What is kept, oldest first, with the number of each among all that was ever published.
    log: Vec<(u64, Stored)>,
    top: Option<EntryId>,
    incarnation: u64,
    evicted: u64,
    clock: u64,
    published: u64,
    /// How many messages had been published at each time.
    published_at: HashMap<u64, u64>,
    /// The numbers of the messages that had this id.
    numbers: HashMap<EntryId, Vec<u64>>,
    /// What it has lost, though it was kept.
    lost: HashSet<u64>,
}

impl Redis {
    fn tick(&mut self) {
        self.clock += 1;
        self.published_at.insert(self.clock, self.published);
    }

    fn incarnation(&self) -> Incarnation {
        // Hashes differ in all bits.
        Incarnation::new(self.incarnation.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn publish(&mut self) -> (u64, Stored) {
        self.published += 1;
        let id = EntryId { ms: self.clock, seq: 0 };
        let id = match self.top {
            Some(top) if top >= id => EntryId { seq: top.seq + 1, ..top },
            _ => id,
        };
        let newest = self.log.last().map(|(_, stored)| stored.id);
        let prev = self.top.or(newest);
        let stored = Stored { incarnation: self.incarnation(), id, prev };
        self.top = Some(id);
        self.log.push((self.published, stored));
        self.numbers.entry(id).or_default().push(self.published);
        self.published_at.insert(self.clock, self.published);
        (self.published, stored)
    }

    fn read(&self, query: Query) -> Reading {
        // A restart changes the life of what is kept, too.
        let life = |(number, stored): &(u64, Stored)| {
            message(*number, Stored { incarnation: self.incarnation(), ..*stored })
        };
        let within = |entry: &&(u64, Stored)| query.after.is_none_or(|after| entry.1.id > after);
        let mut entries: Vec<_> = self.log.iter().filter(within).map(life).collect();
        if query.newest {
            entries.drain(..entries.len().saturating_sub(query.limit));
        } else {
            entries.truncate(query.limit);
        }
        Reading {
            incarnation: self.incarnation(),
            top: self.top,
            evicted: self.evicted,
            now: self.clock,
            entries,
            is_cut: false,
        }
    }
}

fn message(number: u64, stored: Stored) -> Message {
    Message {
        event: Event::default(),
        payload: Payload::Json(Bytes::from(number.to_string())),
        message_id: None,
        timestamp: Timestamp::from_millis(stored.id.ms),
        from: None,
        exclude: None,
        stored: Some(stored),
    }
}

fn number_of(message: &Encoded) -> u64 {
    match &message.message.payload {
        Payload::Json(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
        Payload::Binary(_) => unreachable!(),
    }
}

/// A client, with or without a connection.
#[derive(Default)]
struct Client {
    /// Where it stands, by what it was told.
    place: Option<Cursor>,
    /// All messages up to this number are accounted for.
    covered: u64,
    /// What Redis had lost when it began: not owed to it.
    excused: HashSet<u64>,
    /// It was told of a gap, and has had no message since.
    gap: bool,
    ticket: Option<Ticket>,
    active: bool,
}

struct World {
    redis: Redis,
    rules: NamespaceRules,
    limits: WindowLimits,
    node: StoredChannel,
    linked: bool,
    frames: VecDeque<(u64, Stored)>,
    asked: Option<(Query, u64)>,
    executed: Option<(u64, Reading)>,
    clients: Vec<Client>,
    tickets: u64,
    /// Something happened that can lose messages; without it no gap may be told.
    harmed: bool,
    gaps: usize,
}

fn channel() -> Channel {
    Channel::new("room:42").unwrap()
}

impl World {
    fn new(window: usize) -> Self {
        let rules = NamespaceRules {
            history_size: 10_000,
            history_ttl: Duration::from_secs(1_000_000),
            ..NamespaceRules::default()
        };
        let limits = WindowLimits { messages: window, bytes: 1 << 20 };
        Self {
            redis: Redis {
                log: vec![],
                top: None,
                incarnation: 1,
                evicted: 0,
                clock: 1_000,
                published: 0,
                published_at: HashMap::from([(1_000, 0)]),
                numbers: HashMap::new(),
                lost: HashSet::new(),
            },
            node: StoredChannel::new(channel(), &rules, limits),
            rules,
            limits,
            linked: false,
            frames: VecDeque::new(),
            asked: None,
            executed: None,
            clients: (0..4).map(|_| Client::default()).collect(),
            tickets: 0,
            harmed: false,
            gaps: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        self.redis.tick();
        match step {
            Step::Publish => {
                let frame = self.redis.publish();
                if self.linked {
                    self.frames.push_back(frame);
                }
            }
            Step::Deliver => self.deliver(),
            Step::Lose => {
                self.frames.pop_front();
            }
            Step::Repeat => {
                if let Some(frame) = self.frames.front().copied() {
                    self.deliver();
                    self.frames.push_front(frame);
                }
            }
            Step::Swap => {
                if self.frames.len() > 1 {
                    self.frames.swap(0, 1);
                }
            }
            Step::Break => self.break_link(),
            Step::Link => self.link(),
            Step::Execute => self.execute(),
            Step::Answer => self.answer(),
            Step::Trim(count) => {
                self.harmed = true;
                let count = (*count).min(self.redis.log.len());
                self.redis.log.drain(..count);
            }
            Step::Expire => {
                self.harmed = true;
                self.redis.log.clear();
            }
            Step::Evict => {
                self.harmed = true;
                self.redis.log.clear();
                self.redis.top = None;
                self.redis.evicted += 1;
            }
            Step::Flush => self.lose_redis(usize::MAX),
            Step::Restart => self.lose_redis(0),
            Step::Rollback(count) => self.lose_redis(*count),
            Step::Come(who, anew) => {
                let place = self.clients[*who].place.filter(|_| !anew);
                self.come(*who, place.map_or(Start::Present, Start::After));
            }
            Step::Rewind(who, count) => self.come(*who, Start::Last(*count)),
            Step::Leave(who) => self.leave(*who),
            Step::Elsewhere => self.go_elsewhere(),
            Step::Squeeze(weight) => {
                self.node.trim_window(*weight);
                assert!(self.node.window_weight() <= *weight);
            }
        }
    }

    /// A new life of the data, without the last so many messages. The link breaks with it.
    fn lose_redis(&mut self, count: usize) {
        self.harmed = true;
        self.break_link();
        self.executed = None;
        self.redis.incarnation += 1;
        let kept = self.redis.log.len().saturating_sub(count);
        self.redis.lost.extend(self.redis.log[kept..].iter().map(|(number, _)| *number));
        self.redis.log.truncate(kept);
        match count {
            0 => {}
            usize::MAX => self.redis.top = None,
            _ => self.redis.top = self.redis.log.last().map(|(_, stored)| stored.id),
        }
    }

    fn deliver(&mut self) {
        let Some((number, stored)) = self.frames.pop_front() else { return };
        let message = Arc::new(Encoded::new(channel(), message(number, stored)));
        let mut actions = vec![];
        self.node.announced(message, &mut actions);
        self.perform(actions);
    }

    fn break_link(&mut self) {
        self.linked = false;
        // What was on its way is dropped with its connection.
        self.frames.clear();
        self.node.broken();
    }

    fn link(&mut self) {
        if !self.linked {
            self.linked = true;
            let mut actions = vec![];
            self.node.linked(&mut actions);
            self.perform(actions);
        }
    }

    fn execute(&mut self) {
        if let Some((query, number)) = self.asked.take() {
            self.executed = Some((number, self.redis.read(query)));
        }
    }

    fn answer(&mut self) {
        let Some((number, reading)) = self.executed.take() else { return };
        let mut actions = vec![];
        self.node.has_read(number, &reading, self.redis.clock, &mut actions);
        self.perform(actions);
    }

    fn come(&mut self, who: usize, start: Start) {
        if self.clients[who].ticket.is_some() {
            return;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.clients[who].ticket = Some(ticket);
        let mut actions = vec![];
        self.node.ask(who, ticket, start, self.redis.clock, &mut actions);
        self.perform(actions);
    }

    fn leave(&mut self, who: usize) {
        if let Some(ticket) = self.clients[who].ticket.take() {
            self.node.cancel(who, ticket);
            self.clients[who].active = false;
        }
    }

    /// The node dies; its clients find another one, which knows nothing of the channel yet.
    fn go_elsewhere(&mut self) {
        (0..self.clients.len()).for_each(|who| self.leave(who));
        self.break_link();
        (self.asked, self.executed) = (None, None);
        self.node = StoredChannel::new(channel(), &self.rules, self.limits);
        self.link();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Deliver(message) => {
                    for client in self.clients.iter_mut().filter(|client| client.active) {
                        client.gets(&message);
                    }
                }
                Action::Gap(gap) => {
                    self.gaps += 1;
                    for client in self.clients.iter_mut().filter(|client| client.active) {
                        client.is_told(gap);
                    }
                }
                Action::Start(who, ticket, begin) => self.start(who, ticket, &begin),
                Action::Read(query, number) => {
                    assert!(self.asked.is_none() || self.asked.unwrap().1 < number);
                    self.asked = Some((query, number));
                }
            }
        }
    }

    fn start(&mut self, who: usize, ticket: Ticket, begin: &Begin) {
        let client = &mut self.clients[who];
        assert_eq!(client.ticket, Some(ticket), "begun without being asked for");
        match begin.recovered {
            // It goes on from where it was, though a place before the first message may be renamed.
            Some(true) => {
                let renamed = |place: Cursor| {
                    let is_first = place.id.is_before_first() && begin.place.id.is_before_first();
                    is_first && begin.backlog.is_empty() && place.life == begin.place.life
                };
                let place = client.place.unwrap();
                assert!(begin.place == place || renamed(place), "{place:?} {:?}", begin.place);
                client.place = Some(begin.place);
            }
            Some(false) => {}
            None => {
                client.gap = false;
                client.covered = match begin.backlog.first() {
                    Some(first) => {
                        let prev = first.message.stored.unwrap().prev;
                        let before_first = prev.is_none() && begin.place.id.is_before_first();
                        assert!(before_first || prev == Some(begin.place.id));
                        number_of(first) - 1
                    }
                    None => self.redis.number_at(begin.place),
                };
                client.place = Some(begin.place);
                client.excused = self.redis.lost.clone();
            }
        }
        if let Some(gap) = begin.gap {
            self.gaps += 1;
            client.is_told(gap);
        }
        for message in &begin.backlog {
            client.gets(message);
        }
        client.active = true;
    }

    /// Everything is mended, and every answer arrives.
    fn settle(&mut self) {
        self.break_link();
        self.link();
        for _ in 0..50 {
            self.redis.tick();
            self.execute();
            self.answer();
            self.deliver();
        }
        assert!(self.node.is_whole(), "it does not settle");
    }

    fn check(&mut self) {
        for (who, client) in self.clients.iter_mut().enumerate() {
            client.pass_excused();
            if client.active {
                let whole = client.covered == self.redis.published || client.gap;
                assert!(whole, "client {who}: {} of {}", client.covered, self.redis.published);
            }
            assert!(client.ticket.is_none() || client.active, "client {who} never began");
        }
        assert!(self.harmed || self.gaps == 0, "{} gaps for nothing", self.gaps);
    }
}

impl Redis {
    /// How many messages had been published at a place.
    fn number_at(&self, place: Cursor) -> u64 {
        if place.id.is_before_first() {
            return self.published_at[&place.id.seq];
        }
        // Ids are handed out again after a rollback: the last one that was not lost.
        let all = self.numbers[&place.id].iter().rev();
        all.copied().find(|number| !self.lost.contains(number)).unwrap()
    }
}

impl Client {
    fn gets(&mut self, message: &Encoded) {
        let number = number_of(message);
        self.pass_excused();
        assert!(number > self.covered, "{number} after {}: twice, or out of order", self.covered);
        let next = number == self.covered + 1;
        assert!(next || self.gap, "{number} after {} without a gap", self.covered);
        self.covered = number;
        self.gap = false;
        self.place = message.cursor();
    }

    fn pass_excused(&mut self) {
        while self.excused.contains(&(self.covered + 1)) {
            self.covered += 1;
        }
    }

    fn is_told(&mut self, gap: Gap) {
        assert_eq!(gap.after, self.place, "the gap begins where the client is");
        self.gap = true;
        self.place = gap.cursor;
    }
}

/// A burst on an empty channel, of more messages than its history keeps: the read that the first
/// one starts shows only the last of them, the rest is there because it was announced meanwhile.
#[test]
fn a_burst_beyond_the_history_is_no_gap() {
    for empty in [true, false] {
        let mut world = World::new(100);
        world.step(&Step::Link);
        if !empty {
            world.step(&Step::Publish);
        }
        world.step(&Step::Execute);
        world.step(&Step::Answer);
        world.step(&Step::Come(0, true));
        if !empty {
            // A frame that is lost is what starts the read here.
            world.step(&Step::Publish);
            world.step(&Step::Publish);
            world.frames.pop_front();
            world.frames.pop_front();
            world.redis.log.clear();
        }
        for _ in 0..50 {
            world.step(&Step::Publish);
            world.step(&Step::Deliver);
        }
        let kept = world.redis.log.len() - 10;
        world.redis.log.drain(..kept);
        world.step(&Step::Execute);
        world.step(&Step::Answer);
        assert!(!world.clients[0].gap);
        if empty {
            assert_eq!((world.gaps, world.clients[0].covered), (0, 50));
        } else {
            assert_eq!((world.gaps, world.clients[0].covered), (1, 53));
        }
    }
}

/// Two places before the first message are one place with two names, one of this node and one of
/// another. A gap names the one that the client has.
#[test]
fn a_place_before_the_first_message_of_another_node() {
    let mut world = World::new(100);
    let read = |world: &mut World| {
        world.step(&Step::Execute);
        world.step(&Step::Answer);
    };
    world.step(&Step::Link);
    world.step(&Step::Come(0, true));
    read(&mut world);
    let first = world.clients[0].place.unwrap();
    world.step(&Step::Elsewhere);
    read(&mut world);
    world.step(&Step::Come(0, false));
    read(&mut world);
    assert!(world.clients[0].active && world.gaps == 0);
    assert_ne!(world.clients[0].place, Some(first));
    world.step(&Step::Flush);
    world.step(&Step::Link);
    read(&mut world);
    assert_eq!(world.gaps, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_silently(steps in steps(), window in 1..30_usize) {
        let mut world = World::new(window);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
