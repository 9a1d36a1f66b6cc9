//! What only the embedded store promises: it comes back from a kill, a torn write and a checkpoint as it was.

use std::io::Write;
use std::path::Path;

use weir_core::{KeyHash, Timestamp};
use weir_store::{Config, EmbeddedConfig, OpenError, Store};

use crate::errors::{codes, error};
use crate::events::told;
use crate::leases::{closing, hear, opening, said};
use crate::words::{app, apply, ask, publication, read, record, report};

async fn open(dir: &Path, log_bytes_max: u64, sync_interval_ms: u64) -> Store {
    let config = EmbeddedConfig { log_bytes_max, sync_interval_ms, ..EmbeddedConfig::new(dir.to_owned()) };
    // The store before this one lets go of the folder once its last maintenance round is over.
    weir_tests::wait::until_async("the folder to be free", || async {
        match Store::open(Config::Embedded(config.clone())).await {
            Err(OpenError::Locked(_)) => None,
            opened => Some(opened.unwrap()),
        }
    })
    .await
}

fn log_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let counted = ask("a", "hits=1<=9/day");
    {
        let store = open(dir.path(), 1 << 30, 0).await;
        store.publish(publication(3, &["a"])).await.unwrap();
        store.apply(counted.clone()).await.unwrap();
        assert_eq!(apply(&store, "a", "disk=#5").await, "ok");
        store.report(report("r", &[("a", "hits=1", None)])).await.unwrap();
    }
    let store = open(dir.path(), 1 << 30, 200).await;
    assert_eq!(read(&store, "a", "hits=0<=9/day disk=0<=9/day").await, "ok 2 5");
    assert_eq!(store.revision().await.unwrap(), 3);
    assert!(!store.report(report("r", &[("a", "hits=1", None)])).await.unwrap(), "reported before");
    assert!(store.cancel(&app("a"), counted.request, None).await.unwrap(), "still known");
    assert_eq!(read(&store, "a", "hits=0<=9/day").await, "ok 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_entry_is_cut_off_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path(), 1 << 30, 200).await;
        store.publish(publication(1, &["a"])).await.unwrap();
        apply(&store, "a", "hits=1").await;
    }
    let log = log_files(dir.path()).pop().unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    file.write_all(&[40, 0, 0, 0, 1, 2, 3, 4, 5]).unwrap();
    for expected in ["ok 2", "ok 3"] {
        let store = open(dir.path(), 1 << 30, 200).await;
        assert_eq!(apply(&store, "a", "hits=1<=9/day").await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_keep_the_log_short_and_count_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for _ in 0..3 {
        let store = open(dir.path(), 2_000, 10).await;
        if expected == 0 {
            store.publish(publication(1, &["a"])).await.unwrap();
        }
        let before = log_files(dir.path()).pop().unwrap();
        weir_tests::wait::until_async("a checkpoint", || {
            expected += 1;
            let (store, before) = (store.clone(), before.clone());
            let dir = dir.path().to_owned();
            async move {
                apply(&store, "a", "hits=1").await;
                (log_files(&dir).pop().unwrap() != before).then_some(())
            }
        })
        .await;
    }
    let store = open(dir.path(), 1 << 30, 200).await;
    assert_eq!(read(&store, "a", "hits=0<=99999/eternity").await, format!("ok {expected}"));
    assert_eq!(store.application(&app("a")).await.unwrap(), Some(record("a")));
    assert!(log_files(dir.path()).len() <= 3, "old files are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_holds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let key: KeyHash = format!("hmac:1:{}", "ab".repeat(32)).parse().unwrap();
    {
        let store = open(dir.path(), 1 << 30, 200).await;
        let mut publication = publication(3, &["gone", "a", "b"]);
        publication.applications[1].user_key = Some(key.clone());
        store.publish(publication.clone()).await.unwrap();
        publication.applications.remove(0);
        publication.revision = 4;
        store.publish(publication).await.unwrap();
        assert_eq!(apply(&store, "a", "hits=2 disk=#5").await, "ok");
        store.report(report("r", &[("b", "late=1", Some(yesterday()))])).await.unwrap();
    }
    let logs = || log_files(dir.path());
    {
        let _store = open(dir.path(), 1, 10).await;
        let folded = || (dir.path().join("checkpoint").exists() && logs().len() > 1).then_some(());
        weir_tests::wait::until("the checkpoint", folded);
    }
    std::fs::remove_file(logs().remove(0)).unwrap();
    let store = open(dir.path(), 1 << 30, 200).await;
    assert_eq!(read(&store, "a", "hits=0<=9/day disk=0<=9/month").await, "ok 2 5");
    assert_eq!(read(&store, "b", "late=0<=9/day<=9/eternity").await, "ok 0 1", "yesterday's");
    assert!(!store.report(report("r", &[("b", "late=1", None)])).await.unwrap(), "reported before");
    assert_eq!(store.revision().await.unwrap(), 4);
    assert_eq!(store.services().await.unwrap(), [("api".parse().unwrap(), record("api"))]);
    assert_eq!(store.application(&app("gone")).await.unwrap(), None);
    assert_eq!(store.application(&app("a")).await.unwrap(), Some(record("a")));
    apply(&store, "a", "hits=1").await;
    assert_eq!(told(&store, "a").await, ["first_traffic", "first_daily_traffic"], "its day is told");
    let found = store.application_of_user_key(&"api".parse().unwrap(), &key).await.unwrap();
    assert_eq!(found.unwrap().as_str(), "a");
}

fn yesterday() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_s(i64::try_from(now.as_secs()).unwrap() - 86_400)
}

/// Cutting off what cannot be read would lose all of it.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_version_are_left_alone() {
    for (name, bytes) in
        [("checkpoint.redb", &b""[..]), ("checkpoint", b"WEIRCKP0"), ("log-00000000000000000001", b"x")]
    {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let opened = Store::open(Config::Embedded(EmbeddedConfig::new(dir.path().to_owned()))).await;
        assert!(opened.is_err(), "{name}");
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path(), 1 << 30, 200).await;
    let second = Store::open(Config::Embedded(EmbeddedConfig::new(dir.path().to_owned()))).await;
    assert!(matches!(second, Err(OpenError::Locked(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_there_after_a_restart_once() {
    let dir = tempfile::tempdir().unwrap();
    let (api, emptied) = ("api".parse().unwrap(), "emptied".parse().unwrap());
    {
        let store = open(dir.path(), 1 << 30, 200).await;
        for code in ["a", "b"] {
            store.keep_error(&api, &error(code)).await.unwrap();
            store.keep_error(&emptied, &error(code)).await.unwrap();
        }
        store.forget_errors(&emptied).await.unwrap();
    }
    {
        let store = open(dir.path(), 1, 10).await;
        assert_eq!(codes(&store, "api", 1, 9).await, "b a of 2", "from the log");
        let folded =
            || (dir.path().join("checkpoint").exists() && log_files(dir.path()).len() > 1).then_some(());
        weir_tests::wait::until("the checkpoint", folded);
        store.keep_error(&api, &error("c")).await.unwrap();
    }
    let store = open(dir.path(), 1 << 30, 200).await;
    assert_eq!(codes(&store, "api", 1, 9).await, "c b a of 3", "from log and checkpoint, each once");
    assert_eq!(codes(&store, "emptied", 1, 9).await, " of 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_there_after_a_restart_and_none_is_told_twice() {
    const UNIT: &str = "hits=1<=10/year";
    let dir = tempfile::tempdir().unwrap();
    let first = ["first_traffic", "first_daily_traffic", "50 % hits per year: 5/10"];
    {
        let store = open(dir.path(), 1 << 30, 200).await;
        store.publish(publication(1, &["a", "b"])).await.unwrap();
        apply(&store, "a", "hits=5<=10/year").await;
        let opened = opening(said("b", (1, 1, 1), &[(UNIT, [0, 0, 5])]));
        assert_eq!(hear(&store, opened).await, "granted 5");
        assert_eq!(hear(&store, closing(said("b", (1, 1, 2), &[(UNIT, [5, 5, 0])]))).await, "closed");
    }
    {
        let store = open(dir.path(), 1, 10).await;
        assert_eq!(told(&store, "a").await, first, "from the log");
        assert_eq!(told(&store, "b").await, first);
        let events = store.events(9).await.unwrap();
        store.acknowledge(&[events[0].id]).await.unwrap();
        let folded =
            || (dir.path().join("checkpoint").exists() && log_files(dir.path()).len() > 1).then_some(());
        weir_tests::wait::until("the checkpoint", folded);
        apply(&store, "a", "hits=3<=10/year").await;
    }
    let mut expected = [&first[1..], &["80 % hits per year: 8/10"]].concat();
    for _ in 0..2 {
        let store = open(dir.path(), 1 << 30, 200).await;
        assert_eq!(told(&store, "a").await, expected, "from log and checkpoint, each once");
        assert_eq!(told(&store, "b").await, first);
        apply(&store, "a", "mail=9<=10/year").await;
        apply(&store, "a", "disk=8<=10/year").await;
        expected.truncate(3);
        expected.push("90 % mail per year: 9/10");
        assert_eq!(told(&store, "a").await, expected, "what was told is remembered");
        let events = store.events(99).await.unwrap();
        assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:?}");
    }
}
