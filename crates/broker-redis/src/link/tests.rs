//! The book of a link against a server that does what Redis does.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::BytesMut;
use proptest::prelude::*;
use tidewire_protocol::Channel;

use super::book::{Book, Tell};
use super::wishes::Wishes;
use crate::names::Names;

const OWN: &str = "p:{node}:echo:1";

/// Redis, as one connection sees it.
#[derive(Default)]
struct Server {
    forbidden: HashSet<String>,
    subscribed: HashSet<String>,
    /// Commands that it has not read.
    input: VecDeque<Vec<String>>,
    /// Answers that the link has not read.
    output: VecDeque<Answer>,
}

enum Answer {
    Confirmed { subscribe: bool, name: String, count: i64 },
    Pong,
    Error,
}

impl Server {
    fn takes(&mut self, out: &mut BytesMut) {
        let text = String::from_utf8(out.split().to_vec()).unwrap();
        let mut words = text.split("\r\n").filter(|word| !word.is_empty());
        while let Some(count) = words.next() {
            let count: usize = count.strip_prefix('*').unwrap().parse().unwrap();
            // Each argument is its length and itself.
            let command = (0..count).map(|_| words.by_ref().nth(1).unwrap().to_owned());
            self.input.push_back(command.collect());
        }
    }

    /// Does the next command.
    fn works(&mut self) {
        let Some(command) = self.input.pop_front() else { return };
        let names = &command[1..];
        let subscribe = match command[0].as_str() {
            "PING" => return self.output.push_back(Answer::Pong),
            kind => kind == "SUBSCRIBE",
        };
        if subscribe && names.iter().any(|name| self.forbidden.contains(name)) {
            return self.output.push_back(Answer::Error);
        }
        for name in names {
            if subscribe {
                self.subscribed.insert(name.clone());
            } else {
                self.subscribed.remove(name);
            }
            let (name, count) = (name.clone(), i64::try_from(self.subscribed.len()).unwrap());
            self.output.push_back(Answer::Confirmed { subscribe, name, count });
        }
    }

    /// What it will be subscribed to once it has done all that it was sent.
    fn will_hold(&self) -> HashSet<String> {
        let mut held = self.subscribed.clone();
        for command in &self.input {
            let names = command[1..].iter().cloned();
            match command[0].as_str() {
                "SUBSCRIBE" if names.clone().any(|name| self.forbidden.contains(&name)) => {}
                "SUBSCRIBE" => held.extend(names),
                "UNSUBSCRIBE" => names.for_each(|name| _ = held.remove(&name)),
                _ => {}
            }
        }
        held
    }
}

/// A link, its node and its server.
struct World {
    book: Book,
    names: Names,
    wishes: Wishes,
    server: Server,
    out: BytesMut,
    /// What the node wants, and whether it was told so since it began to want it.
    wanted: HashMap<String, bool>,
    /// Told as subscribed when the connection broke, and not given up since.
    owed_a_gap: HashSet<String>,
    refused: Vec<String>,
    gaps: Vec<String>,
}

impl World {
    fn new(forbidden: &[&str]) -> Self {
        let server = Server {
            forbidden: forbidden.iter().map(|name| format!("p:{name}")).collect(),
            ..Server::default()
        };
        let mut world = Self {
            book: Book::default(),
            names: Names::new("p"),
            wishes: Wishes::default(),
            server,
            out: BytesMut::new(),
            wanted: HashMap::new(),
            owed_a_gap: HashSet::new(),
            refused: vec![],
            gaps: vec![],
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.book.connected();
        self.book.send_own(OWN, &mut self.out);
    }

    fn wishes(&mut self, name: &str, wanted: bool) {
        self.wishes.note(&Channel::new(name).unwrap(), wanted);
        self.owed_a_gap.retain(|owed| wanted || owed != name);
        if wanted {
            self.wanted.insert(name.to_owned(), false);
        } else {
            self.wanted.remove(name);
        }
    }

    /// The link takes the wishes and sends a command.
    fn sends(&mut self) {
        if self.book.takes_wishes() {
            let mut tell = vec![];
            for (channel, wanted) in self.wishes.take() {
                self.book.wish(channel, wanted, &mut tell);
            }
            self.hears(tell);
        }
        self.book.send_next(&self.names, &mut self.out);
        self.server.takes(&mut self.out);
    }

    /// The link reads an answer.
    fn reads(&mut self) {
        let mut tell = vec![];
        let done = match self.server.output.pop_front() {
            None => Ok(()),
            Some(Answer::Pong) => self.book.pong(),
            Some(Answer::Error) => self.book.error(b"NOPERM no", &mut tell),
            Some(Answer::Confirmed { subscribe, name, count }) => {
                let name = self.names.channel(name.as_bytes());
                self.book.confirmed(subscribe, name, count, &mut tell)
            }
        };
        done.unwrap();
        self.hears(tell);
    }

    /// The node is told; what it is told must be true.
    fn hears(&mut self, tell: Vec<Tell>) {
        for told in tell {
            let (Tell::Subscribed(channel) | Tell::Gap(channel) | Tell::Refused(channel, _)) =
                &told;
            let name = channel.as_str().to_owned();
            if let Tell::Refused(..) = told {
                assert!(self.server.forbidden.contains(&format!("p:{name}")));
                self.wanted.remove(&name);
                self.refused.push(name);
                continue;
            }
            let held = format!("p:{name}");
            assert!(self.server.subscribed.contains(&held), "{told:?} before Redis knows");
            assert!(self.server.will_hold().contains(&held), "{told:?}, and then given up");
            if let Tell::Gap(_) = told {
                self.gaps.push(name.clone());
                self.owed_a_gap.remove(&name);
            } else if let Some(told) = self.wanted.get_mut(&name) {
                assert!(!self.owed_a_gap.contains(&name), "subscribed before the gap is told");
                *told = true;
            }
        }
    }

    fn breaks(&mut self) {
        let told = self.wanted.iter().filter(|(_, told)| **told).map(|(name, _)| name.clone());
        let told: Vec<_> = told.collect();
        let believed: HashSet<_> =
            self.book.believed().map(|channel| channel.as_str().to_owned()).collect();
        assert!(self.owed_a_gap.is_disjoint(&believed), "told twice as broken");
        let missing =
            told.iter().find(|name| !believed.contains(*name) && !self.owed_a_gap.contains(*name));
        assert_eq!(missing, None, "not told as broken");
        self.owed_a_gap.extend(told);
        self.book.lost();
        self.server =
            Server { forbidden: std::mem::take(&mut self.server.forbidden), ..Server::default() };
        self.out.clear();
        self.connect();
    }

    /// Goes on until nothing is left to do, and looks whether all is as it should be.
    fn settles(&mut self) {
        self.book.send_ping(&mut self.out);
        // Once more when all seems done, for the wishes that were not taken yet.
        let mut rests = 0;
        for _ in 0..10_000 {
            self.sends();
            self.server.works();
            self.reads();
            rests = if self.book.is_settled() { rests + 1 } else { 0 };
            if rests == 2 {
                break;
            }
        }
        assert!(self.book.is_settled());
        let wanted: HashSet<_> = self.wanted.keys().map(|name| format!("p:{name}")).collect();
        let mut held = self.server.subscribed.clone();
        assert!(held.remove(OWN));
        assert_eq!(held, wanted);
        assert_eq!(self.book.held(), held.len() + 1);
        assert!(self.wanted.values().all(|told| *told), "{:?}", self.wanted);
        assert!(self.owed_a_gap.is_empty(), "{:?}", self.owed_a_gap);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wish(usize, bool),
    Send,
    Work,
    Read,
    Break,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_usize, any::<bool>()).prop_map(|(n, wanted)| Step::Wish(n, wanted)),
        3 => Just(Step::Send),
        3 => Just(Step::Work),
        6 => Just(Step::Read),
        1 => Just(Step::Break),
    ];
    prop::collection::vec(step, 0..80)
}

const CHANNELS: [&str; 6] = ["a", "b", "c", "d", "e", "bad"];

proptest! {
    #[test]
    fn the_node_is_told_the_truth_and_in_the_end_has_what_it_wants(steps in steps()) {
        let mut world = World::new(&["bad"]);
        for step in steps {
            match step {
                Step::Wish(n, wanted) => world.wishes(CHANNELS[n], wanted),
                Step::Send => world.sends(),
                Step::Work => world.server.works(),
                Step::Read => world.reads(),
                Step::Break => world.breaks(),
            }
        }
        world.settles();
    }
}

#[test]
fn a_refused_batch_is_halved_until_the_culprits_are_alone() {
    let mut world = World::new(&["n:77", "n:1000"]);
    let all: Vec<_> = (0..1_200).map(|n| format!("n:{n}")).collect();
    all.iter().for_each(|name| world.wishes(name, true));
    world.settles();
    world.refused.sort();
    assert_eq!(world.refused, ["n:1000", "n:77"]);
}

#[test]
fn a_gap_is_told_once_per_channel_and_break() {
    let mut world = World::new(&[]);
    world.wishes("a", true);
    world.settles();
    world.breaks();
    // Breaks again before anything is confirmed.
    world.breaks();
    world.settles();
    assert_eq!(world.gaps, ["a"]);
    world.breaks();
    world.settles();
    assert_eq!(world.gaps, ["a", "a"]);
}

/// A node gave a channel up and wanted it again before the link looked, while the confirmation of
/// its first wish was on its way: it took that for the second wish's, and then the link broke. Once
/// the gap was forgotten with the first wish, and the loss was not told.
#[test]
fn a_gap_outlives_a_wish_that_was_renewed_before_the_link_looked() {
    let mut world = World::new(&[]);
    world.settles();
    world.wishes("a", true);
    world.sends();
    world.wishes("a", false);
    world.wishes("a", true);
    world.server.works();
    world.reads();
    world.breaks();
    world.settles();
    assert_eq!(world.gaps, ["a"]);
}

#[test]
fn an_answer_that_does_not_fit_breaks_the_link() {
    let mut tell = vec![];
    let mut book = Book::default();
    assert!(book.pong().is_err());
    assert!(book.confirmed(true, Some("a"), 1, &mut tell).is_err());
    assert!(book.error(b"ERR", &mut tell).is_err());
    book.send_own(OWN, &mut BytesMut::new());
    // A count that says that Redis has lost subscriptions, or knows others.
    assert!(book.confirmed(true, None, 2, &mut tell).is_err());
}
