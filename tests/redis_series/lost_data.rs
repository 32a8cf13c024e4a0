//! What a store of series on Redis does about lost scripts, lost keys, lost writes, and a full Redis.

use holdall::model::series::SeriesId;
use holdall::store::{Delta, SeriesWriter};

use super::{MAX_SERIES, RETENTION, clock, fill, live, names, push, replica, spread, try_push};
use crate::conformance::fixture::did_delete;
use crate::harness::eventually;
use crate::harness::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_are_loaded_again() {
    let (server, clock) = (Redis::start(&[]), clock());
    let stores = replica(&server.url(), "scripts", &clock);
    for round in 1..=3 {
        server.cli(&["script", "flush"]);
        assert_eq!(push(&stores, &names(&format!("m_{round}"), 10)).await.created, 10);
        server.cli(&["script", "flush"]);
        assert_eq!(live(&stores).await, 10 * round);
    }
}

/// A Redis that evicts keys, or a client that deletes some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_lost_alone_takes_its_shards_series_along_and_no_others() {
    let (server, clock) = (Redis::start(&[]), clock());
    for lost in ["info", "series", "series_log", "series_updates", "tombstones", "tombstone_log"] {
        let [one, two] = [0; 2].map(|_| replica(&server.url(), lost, &clock));
        push(&one, &spread("old", 60)).await;
        let cursor = one.series.cursor().await.expect("the store works");
        assert_eq!(live(&two).await, 60);
        for name in spread("old", 60).into_iter().step_by(2) {
            one.series
                .delete(SeriesId::of(&name, ""), SeriesWriter::anybody())
                .await
                .expect("the store works");
        }
        assert_eq!(server.cli(&["del", &format!("{{{lost}:1}}:{lost}")]).trim(), "1", "{lost}");
        assert_eq!(
            one.series.delta(&cursor, None, 1000).await.expect("works"),
            Delta::Gone,
            "{lost}"
        );
        let left = live(&one).await;
        assert!(left > 0 && left < 30, "{lost}: {left}");
        assert_eq!(live(&two).await, left, "{lost}");
        assert_eq!(push(&two, &spread("old", 60)).await.created, 60 - left, "{lost}");
        assert_eq!(60 + fill(&one, "new").await, MAX_SERIES, "{lost}");
        assert_eq!(live(&two).await, MAX_SERIES, "{lost}");
        clock.advance(RETENTION * 2);
        assert_eq!(live(&two).await, 0, "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_read_and_purges_what_has_expired() {
    let (server, clock) = (Redis::start(&[]), clock());
    let stores = replica(&server.url(), "full", &clock);
    push(&stores, &spread("a", 40)).await;
    push(&stores, &spread("b", 40)).await;
    // Not so much later that their scores move as well: they are due before they have expired.
    clock.advance(RETENTION / 8);
    push(&stores, &spread("a", 40)).await;
    server.cli(&["config", "set", "maxmemory", "1"]);
    clock.advance(RETENTION - RETENTION / 16);
    assert_eq!(live(&stores).await, 40);
    let deleted =
        stores.series.delete(SeriesId::of(&spread("a", 1)[0], ""), SeriesWriter::anybody()).await;
    assert_eq!(deleted.expect("room is made"), did_delete(1));
    assert_eq!(live(&stores).await, 39);
    clock.advance(RETENTION);
    assert_eq!(live(&stores).await, 0);
}

/// The first step on a restarted server starts a new epoch, before the periodic check does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cursor_is_honoured_by_a_redis_that_lost_the_last_writes() {
    let (mut server, clock) = (Redis::start(&[]), clock());
    let stores = replica(&server.url(), "lost", &clock);
    push(&stores, &names("old", 20)).await;
    server.cli(&["save"]);
    push(&stores, &names("lost", 20)).await;
    let cursor = stores.series.cursor().await.expect("the store works");
    server.kill();
    server.run();
    // As many changes as were lost.
    eventually("redis is found again", async || {
        try_push(&stores, &names("new", 20)).await.ok().map(drop)
    })
    .await;
    assert_eq!(stores.series.delta(&cursor, None, 1000).await.expect("works"), Delta::Gone);
    assert_eq!(live(&stores).await, 40);
    assert_eq!(40 + fill(&stores, "rest").await, MAX_SERIES);
}
