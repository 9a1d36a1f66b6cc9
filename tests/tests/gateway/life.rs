//! A gateway's life: catalogs change under load, listeners are away, it is told to stop.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::http::{call, get, read_answer};
use weir_tests::load::Load;
use weir_tests::wait::{until, until_async};

use crate::world::{Api, KEY, PLAIN, World, catalog};

const API: Api<'static> = Api { id: "api", ..PLAIN };

/// Goal: a changed catalog is in force within a second, and no request notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_changes_under_load() {
    let world = World::start(&[API]).await;
    let load = Load::start(&world.stack.addresses(), 4, u64::MAX, &format!("/?user_key={KEY}"));
    load.answers(100).await;
    for revision in 2..5 {
        let host = format!("[\"new-{revision}.test\"]");
        let added = Api { id: "new", hosts: &host, ..PLAIN };
        let request = format!("GET new-{revision}.test/?user_key={{key}}");
        world.check(&request, "404");
        world.stack.put_catalog(&catalog(revision, &[API, added]));
        let changed = Instant::now();
        until("the new service", || (world.call(&request).status == 200).then_some(()));
        // A second is promised; another is for machines that are busy with other tests.
        assert!(changed.elapsed() < Duration::from_secs(2), "{:?}", changed.elapsed());
        load.answers(50).await;
    }
    let tally = load.stop().await;
    assert_eq!(tally.of(200), tally.total(), "{tally:?}");
    world.stack.put_catalog(&catalog(5, &[API]));
    until("the service to go", || (world.call("GET new-4.test/?user_key={key}").status == 404).then_some(()));
    world.stack.put_catalog("revision = 6\nnonsense");
    until("the fault to be logged", || {
        world.stack.listeners[0].log().contains("catalog.toml:2").then_some(())
    });
    world.check("GET api.test/?user_key={key}", "200");
    world.finish();
}

/// Goal: requests in flight end, new ones are kept away.
/// Method: SIGTERM while the upstream still thinks; readiness goes before the answer comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_survives_the_stop() {
    let mut world = World::start(&[API]).await;
    let (address, telemetry) = (world.stack.gateways[0].address, world.stack.gateways[0].telemetry);
    let mut gateway = world.stack.gateways.remove(0);
    let (received, upstream) = (world.stack.upstream.received(), &world.stack.upstream);
    std::thread::scope(|scope| {
        let target = format!("/?user_key={KEY}");
        let flight = scope.spawn(move || call(address, "GET", &target, &[("x-delay-ms", "3000")], ""));
        until("the request upstream", || (upstream.received() > received).then_some(()));
        let stop = scope.spawn(move || (gateway.terminate(), gateway));
        until("readiness to go", || (get(telemetry, "/readyz").status == 503).then_some(()));
        assert!(!flight.is_finished(), "readiness goes first");
        until("the socket to close", || TcpStream::connect(address).is_err().then_some(()));
        assert!(!flight.is_finished(), "requests in flight go on");
        assert_eq!(flight.join().unwrap().status, 200);
        let (status, gateway) = stop.join().unwrap();
        assert!(status.success(), "{status}");
        world.stack.gateways.push(gateway);
    });
    assert_eq!(world.used("api").await.get("hits"), Some(&1));
    world.finish();
}

/// Goal: who is connected when a gateway is told to stop is answered, not reset.
/// Method: the process sleeps while clients connect and ask and it is told to stop, and wakes to all of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_wait_at_the_stop_are_served() {
    let mut world = World::start(&[API]).await;
    let gateway = world.stack.gateways.remove(0);
    gateway.signal("STOP");
    let ask = format!("GET /?user_key={KEY} HTTP/1.1\r\nhost: api.test\r\n\r\n");
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(ask.as_bytes()).unwrap();
    }
    gateway.signal("TERM");
    gateway.signal("CONT");
    let statuses: Vec<_> = clients.iter_mut().map(|client| read_answer(client, false).status).collect();
    assert_eq!(statuses, [200; 20]);
    until("the socket to close", || TcpStream::connect(gateway.address).is_err().then_some(()));
    world.stack.gateways.push(gateway);
    world.finish();
}

/// Goal: without a listener nothing passes, from a start without one to the day it comes back.
/// Method: a first run leaves its configuration on disk; the second finds no listener.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("state_dir = {:?}", folder.path());
    let mut world = World::start_with(&[API], &state).await;
    world.check("GET api.test/?user_key={key}", "200");
    until("the configuration on disk", || kept(folder.path()).then_some(()));
    world.stack.listeners[0].kill();
    world.stack.gateways[0].kill();
    world.stack.gateways[0].start();
    let received = world.stack.upstream.received();
    for _ in 0..3 {
        let answer = world.call("GET api.test/?user_key={key}");
        assert_eq!((answer.status, answer.header("retry-after").as_str()), (503, "1"), "{answer:?}");
    }
    world.check("GET api.test/", "401 Authentication parameters missing");
    world.check("GET other.test/", "404");
    let problem = world.call("GET api.test/?user_key={key}|Accept: application/problem+json");
    assert_eq!(problem.json()["code"], "authorisation_unavailable");
    assert_eq!(world.stack.upstream.received(), received);
    world.stack.listeners[0].start();
    until_async("calls to pass again", || async {
        (world.call("GET api.test/?user_key={key}").status == 200).then_some(())
    })
    .await;
    world.stack.counter_settles_at("app", "hits", 2).await;
    world.finish();
}

/// Goal: a gateway that knows nothing yet says "later", not "no such host". Method: start it beside a dead listener.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_configuration_asks_for_patience() {
    let mut world = World::start(&[API]).await;
    world.stack.listeners[0].kill();
    world.stack.gateways[0].kill();
    world.stack.gateways[0].launch();
    world.stack.gateways[0].wait_live();
    let answer = world.call("GET api.test/?user_key={key}");
    assert_eq!((answer.status, answer.header("retry-after").as_str()), (503, "1"), "{answer:?}");
    assert_eq!(get(world.stack.gateways[0].telemetry, "/readyz").status, 503);
    world.finish();
}

fn kept(folder: &Path) -> bool {
    folder.join("configuration.bin").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_was_answered() {
    let world = World::start(&[API]).await;
    let gateway = &world.stack.gateways[0];
    world.check("GET api.test/?user_key={key}", "200");
    world.check("GET api.test/?user_key={key}", "200");
    world.check("GET api.test/", "401 Authentication parameters missing");
    assert_eq!(world.call("GET api.test/?user_key={key}|x-status: 503").status, 503);
    world.check("GET other.test/", "404");
    let metrics = until("the metrics", || {
        let text = get(gateway.telemetry, "/metrics").body;
        text.contains("service=\"none\",class=\"4xx\"} 1").then_some(text)
    });
    for (class, count) in [("2xx", 2), ("4xx", 1), ("5xx", 1)] {
        let line = format!("weir_gateway_requests_total{{service=\"api\",class=\"{class}\"}} {count}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    for name in
        ["weir_gateway_authorisations_total", "weir_gateway_request_seconds", "weir_gateway_listeners_up 1"]
    {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    assert!(!metrics.contains("s3cret") && !metrics.contains("app"), "{metrics}");
    assert_eq!(get(gateway.telemetry, "/livez").status, 200);
    world.finish();
}
