//! `weir ledger show`, asked of a running listener.

use serde_json::Value;
use weir_tests::process::weir;
use weir_tests::stack::TOKEN;

use crate::world::{Api, PLAIN, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_what_is_used() {
    let limits = r#"{ metric = "hits", period = "eternity", max = 9 }"#;
    let world = World::start(&[Api { limits, proxy: "decisions = \"synchronous\"", ..PLAIN }]).await;
    for _ in 0..2 {
        world.check("GET plain.test/?user_key={key}", "200");
    }
    let dir = tempfile::tempdir().expect("a folder of its own");
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).expect("a file of its own");
    let (file, listener) =
        (file.display().to_string(), format!("http://{}", world.stack.listeners[0].address));
    let show = |application: &str, more: &[&str]| {
        let arguments = ["ledger", "show", application, "--listener", &listener, "--token-file", &file];
        weir(&[&arguments, more].concat())
    };
    let shown = show("plain/app", &["--json"]);
    assert!(shown.status.success(), "{shown:?}");
    let read: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let text = read.to_string();
    assert!(text.contains("\"limit\":9,\"metric\":\"hits\"") && text.contains("\"remaining\":7"), "{text}");
    let table = show("plain/app", &[]);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.contains("hits") && text.contains("remaining"), "{text}");
    assert_eq!(show("plain/nobody", &[]).status.code(), Some(1));
    world.finish();
}
