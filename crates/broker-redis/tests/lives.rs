//! Lives of the stored data: flushes, restarts, promotions, and a library that is gone.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{channel, node, publish_stored, published, quick, ready, refused};
use tidewire_broker::suite::{Node, Told};
use tidewire_broker::{Published, Query, Reading, Verdict};
use tidewire_broker_redis::{AfterRestart, Settings};
use tidewire_protocol::{Cursor, EntryId, Incarnation};
use tidewire_testkit::{RedisServer, Reply, soon};

const KEPT: &str = "kept:a";

async fn read(node: &Node) -> Reading {
    soon("a reading", async {
        loop {
            match node.broker.read(&channel(KEPT), Query::newest(50)).await {
                Ok(reading) => return reading,
                // While Redis is away.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

fn place(published: Published) -> (Incarnation, EntryId) {
    published.place.unwrap()
}

#[tokio::test]
async fn a_flush_begins_a_new_life_at_once() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    let to = channel(KEPT);
    node.subscribe(&to).await;
    ready(&node).await;
    let (first, id) = place(publish_stored(&node, &to, 1).await.unwrap());
    redis.command(&["FLUSHALL"]).await;
    // Neither link nor node has noticed anything.
    let (second, _) = place(publish_stored(&node, &to, 1).await.unwrap());
    assert_ne!(first, second);
    let messages = [node.told.next().await, node.told.next().await];
    let lives = messages.map(|told| match told {
        Told::Message(_, message, _) => message.stored.unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(lives.map(|stored| stored.incarnation), [first, second]);
    assert_eq!(lives[1].prev, None);
    let reading = read(&node).await;
    assert_eq!((reading.incarnation, reading.entries.len()), (second, 1));
    assert_eq!(reading.judge(Cursor::new(&to, first, id)), Verdict::Gap(1));

    // A read after a flush makes a life, too, and the same for all.
    redis.command(&["FLUSHALL"]).await;
    let third = read(&node).await.incarnation;
    assert!(third != first && third != second);
    assert_eq!(place(publish_stored(&node, &to, 1).await.unwrap()).0, third);
}

#[tokio::test]
async fn a_restart_with_the_data_goes_on_in_a_new_life() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let node = node(quick(&redis.url()));
    let to = channel(KEPT);
    ready(&node).await;
    let (first, id) = place(publish_stored(&node, &to, 1).await.unwrap());
    redis.restart().await;
    let reading = read(&node).await;
    assert_ne!(reading.incarnation, first);
    assert_eq!(reading.top, Some(id));
    ready(&node).await;
    // It remembers messageIds, and where the channel was.
    let again = publish_stored(&node, &to, 1).await.unwrap();
    assert_eq!(again, Published { place: Some((reading.incarnation, id)), duplicate: true });
    publish_stored(&node, &to, 2).await.unwrap();
    let entries = read(&node).await.entries;
    assert_eq!(entries[1].stored.unwrap().prev, Some(id));
    assert!(entries.iter().all(|e| e.stored.unwrap().incarnation == reading.incarnation));
}

fn trusting(redis: &RedisServer) -> Settings {
    Settings { after_restart: AfterRestart::Trust, ..quick(&redis.url()) }
}

#[tokio::test]
async fn where_it_is_trusted_a_restart_with_the_data_begins_no_new_life() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let node = node(trusting(&redis));
    let (to, empty) = (channel(KEPT), channel("kept:empty"));
    ready(&node).await;
    let (first, id) = place(publish_stored(&node, &to, 1).await.unwrap());
    // A backend's cursor is of the same life.
    let (cursor, _) = published(&redis, KEPT, "1", None).await;
    let cursor = Cursor::parse(&cursor, &to).unwrap();
    let before = node.broker.read(&empty, Query::newest(1)).await.unwrap();
    let before_first = before.cursor(&empty, before.present());
    redis.restart().await;
    let reading = read(&node).await;
    assert_eq!(reading.incarnation, first);
    assert_eq!(reading.judge(Cursor::new(&to, first, id)), Verdict::GoesOn(1));
    assert_eq!(reading.judge(cursor), Verdict::GoesOn(2));
    ready(&node).await;
    publish_stored(&node, &empty, 1).await.unwrap();
    let after = node.broker.read(&empty, Query::newest(9)).await.unwrap();
    assert_eq!(after.judge(before_first), Verdict::GoesOn(0));

    // What is gone is gone, however it is trusted: a place before the first message, too.
    redis.command(&["FLUSHALL"]).await;
    publish_stored(&node, &empty, 2).await.unwrap();
    publish_stored(&node, &to, 2).await.unwrap();
    let flushed = read(&node).await;
    assert_eq!(flushed.judge(Cursor::new(&to, first, id)), Verdict::Gap(1));
    let after = node.broker.read(&empty, Query::newest(9)).await.unwrap();
    assert_eq!(after.judge(before_first), Verdict::Gap(1));
}

/// A server that lost what it had acknowledged, against all trust: the ids show it.
#[tokio::test]
async fn trust_that_is_misplaced_is_found_out_by_the_ids() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let node = node(trusting(&redis));
    let to = channel(KEPT);
    ready(&node).await;
    let (life, kept) = place(publish_stored(&node, &to, 1).await.unwrap());
    // Nothing after this outlives the restart.
    redis.command(&["CONFIG", "SET", "appendonly", "no"]).await;
    let (_, lost) = place(publish_stored(&node, &to, 2).await.unwrap());
    redis.restart().await;
    let reading = read(&node).await;
    assert_eq!((reading.incarnation, reading.top), (life, Some(kept)));
    assert_eq!(reading.judge(Cursor::new(&to, life, kept)), Verdict::GoesOn(1));
    assert_eq!(reading.judge(Cursor::new(&to, life, lost)), Verdict::Gap(1));
    ready(&node).await;
    publish_stored(&node, &to, 3).await.unwrap();
    let reading = read(&node).await;
    assert!(matches!(reading.judge(Cursor::new(&to, life, lost)), Verdict::Gap(_)));
}

#[tokio::test]
async fn where_keys_are_evicted_a_place_before_the_first_message_does_not_outlive_a_restart() {
    let arguments = ["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"];
    let mut redis = RedisServer::with(&arguments).await;
    let node = node(trusting(&redis));
    ready(&node).await;
    let before = read(&node).await;
    let place = before.cursor(&channel(KEPT), before.present());
    assert_eq!(read(&node).await.judge(place), Verdict::GoesOn(0));
    redis.restart().await;
    assert_eq!(read(&node).await.judge(place), Verdict::Gap(0));
}

#[tokio::test]
async fn a_restart_without_data_or_functions_is_made_good() {
    let mut redis = RedisServer::with(&["--enable-debug-command", "yes"]).await;
    let node = node(quick(&redis.url()));
    let to = channel(KEPT);
    ready(&node).await;
    let (first, _) = place(publish_stored(&node, &to, 1).await.unwrap());
    redis.restart_empty().await;
    assert_ne!(read(&node).await.incarnation, first);
    ready(&node).await;
    assert!(!publish_stored(&node, &to, 1).await.unwrap().duplicate);
    // A debugger's reload is no restart.
    let now = read(&node).await;
    assert_eq!(redis.command(&["DEBUG", "RELOAD"]).await.text(), "OK");
    let mut after = read(&node).await;
    after.now = now.now;
    assert_eq!(after, now);
}

#[tokio::test]
async fn a_library_that_is_gone_is_loaded_again() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    redis.command(&["FUNCTION", "FLUSH"]).await;
    refused(&redis, KEPT, "1", None, "ERR Function not found").await;
    // Certainly not stored; and the publisher who finds out sees to it.
    let outcome = publish_stored(&node, &channel(KEPT), 1).await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("Function not found")));
    soon("the library", async {
        while publish_stored(&node, &channel(KEPT), 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(read(&node).await.entries.len(), 1);
    // So does a read, which nobody notices.
    redis.command(&["FUNCTION", "FLUSH"]).await;
    let reading = node.broker.read(&channel(KEPT), Query::newest(50)).await.unwrap();
    assert_eq!(reading.entries.len(), 1);
    published(&redis, KEPT, "1", None).await;
}

#[tokio::test]
async fn a_promoted_replica_has_all_it_needs() {
    let master = RedisServer::start().await;
    let on_master = node(quick(&master.url()));
    let to = channel(KEPT);
    ready(&on_master).await;
    let (first, id) = place(publish_stored(&on_master, &to, 1).await.unwrap());
    let port = master.addr().port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    soon("the copy", async {
        while replica.command(&["EXISTS", "{tidewire:kept:a}:top"]).await != Reply::Int(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    // Until then it is not read: its last ids may lag behind.
    let read_there = ["FCALL_RO", "tidewire_read", "1", "tidewire:kept:a", "", "", "9", "0", "0"];
    let answer = replica.command(&read_there).await;
    assert!(matches!(&answer, Reply::Error(why) if why.starts_with("READONLY")), "{answer:?}");
    refused(&replica, KEPT, "1", None, "READONLY").await;

    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    // No node is there yet; the function came with the data.
    published(&replica, KEPT, "2", None).await;
    let promoted = node(quick(&replica.url()));
    ready(&promoted).await;
    let reading = read(&promoted).await;
    assert_ne!(reading.incarnation, first);
    assert_eq!(reading.entries[1].stored.unwrap().prev, Some(id));
    assert_eq!(reading.judge(Cursor::new(&to, first, id)), Verdict::Gap(2));
}

#[tokio::test]
async fn a_channel_that_was_evicted_is_known_to_be() {
    let redis = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    let before = node.broker.read(&channel("kept:b"), Query::newest(1)).await.unwrap();
    let cursor = before.cursor(&channel("kept:b"), before.present());
    assert_eq!(before.judge(cursor), Verdict::GoesOn(0));
    for n in 0..200 {
        published(&redis, &format!("kept:{n}"), "x".repeat(20_000), None).await;
    }
    let Reply::Text(info) = redis.command(&["INFO", "memory"]).await else { panic!() };
    let info = String::from_utf8(info).unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let less = used.parse::<u64>().unwrap() - 2_000_000;
    redis.command(&["CONFIG", "SET", "maxmemory", &less.to_string()]).await;
    published(&redis, "kept:b", "1", None).await;
    let after = node.broker.read(&channel("kept:b"), Query::newest(1)).await.unwrap();
    assert!(after.evicted > before.evicted);
    // The first message may not have been the first one.
    assert!(matches!(after.judge(cursor), Verdict::Gap(_)));
}
