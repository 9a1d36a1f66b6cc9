//! What only the embedded store promises: it comes back from a kill, a torn write and a checkpoint as it was.

use std::io::Write;
use std::path::Path;

use weir_store::{Config, EmbeddedConfig, OpenError, Store};

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
async fn a_folder_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path(), 1 << 30, 200).await;
    let second = Store::open(Config::Embedded(EmbeddedConfig::new(dir.path().to_owned()))).await;
    assert!(matches!(second, Err(OpenError::Locked(_))));
}
