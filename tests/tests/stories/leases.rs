//! Leases when things die: what was spent is counted, what was not is given back, and no limit is ever passed.

use std::time::{Duration, Instant};

use weir_proto::v1;
use weir_tests::http::get;
use weir_tests::listener::usage_entry;
use weir_tests::load::Load;
use weir_tests::random::Random;
use weir_tests::stack::{Plan, Role, Stack, catalog, catalog_with};
use weir_tests::wait::{until, until_async};

const CONNECTIONS: usize = 32;
const REQUESTS_MAX: u64 = 400_000;
const TARGET: &str = "/?user_key=key";
/// Answers to wait for before and after each event.
const STRETCH: u64 = 2_000;
const LIMIT: u64 = 1_000;
const KILLS: usize = 12;

fn unlimited() -> String {
    catalog(1, "{ metric = \"hits\", period = \"day\", max = 100_000_000 }")
}

/// What a metric of a gateway says.
fn metric(stack: &Stack, gateway: usize, name: &str) -> u64 {
    read_metric(&stack.gateways[gateway], name)
}

/// What a metric of the first listener says.
fn listener_metric(stack: &Stack, name: &str) -> u64 {
    read_metric(&stack.listeners[0], name)
}

fn read_metric(role: &Role, name: &str) -> u64 {
    let text = get(role.telemetry, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().expect("a number")
}

/// Goal: nothing that a killed gateway spent is lost, and nothing that it only held is counted.
async fn a_killed_gateway_loses_nothing(plan: Plan) {
    let mut stack = Stack::start(&Plan { journals: true, ..plan }).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    load.answers(STRETCH).await;
    stack.gateways[0].kill();
    load.answers(STRETCH).await;
    stack.gateways[0].start();
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    let decided = metric(&stack, 1, "weir_gateway_lease_decisions_total{outcome=\"allowed\"}");
    assert!(decided > 0, "calls are decided within leases");
    let received = stack.upstream.received();
    assert!(received >= tally.of(200), "{tally:?}");
    // Requests that were in flight at the kill may have been counted and not sent.
    let at_most = received + CONNECTIONS as u64;
    let client = stack.listener_client(0);
    until_async("leases of the killed gateway to be settled", || async {
        let used = client.used("app", "hits", v1::Period::Eternity).await.ok()?;
        (received..=at_most).contains(&used).then_some(())
    })
    .await;
    until("the journal to be settled", || (metric(&stack, 0, "weir_gateway_leases ") == 0).then_some(()));
    let used = client.used("app", "hits", v1::Period::Eternity).await.expect("the listener answers");
    assert!((received..=at_most).contains(&used), "{used} counted, {received} received");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_over_the_embedded_store_loses_nothing() {
    a_killed_gateway_loses_nothing(Plan { gateways: 2, ..Plan::small(&unlimited()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_over_redis_loses_nothing() {
    let plan = Plan { listeners: 2, gateways: 2, redis: true, ..Plan::small(&unlimited()) };
    a_killed_gateway_loses_nothing(plan).await;
}

/// Goal: failures that a service has for free cost nothing, though gateways are killed in between, and nothing else
/// comes back. Method: half of the calls fail at the upstream; two gateways are killed in turn, with the answers of many
/// calls under way, and come back; what is counted is what was answered 200, give or take calls whose answer nobody saw.
async fn free_failures_come_back_under_kills(plan: Plan, synchronous: bool) {
    let decisions = if synchronous { "decisions = \"synchronous\"" } else { "" };
    let limits = "{ metric = \"hits\", period = \"day\", max = 100_000_000 }";
    let free = "metrics = { search = 1 }, free_answers = \"5xx\" }";
    let catalog = catalog_with(1, limits, decisions).replace("metrics = { search = 1 } }", free);
    assert!(catalog.contains("free_answers"));
    let mut stack = Stack::start(&Plan { gateways: 2, journals: true, catalog, ..plan }).await;
    let well = Load::start(&stack.addresses(), CONNECTIONS / 2, REQUESTS_MAX, TARGET);
    let badly =
        Load::start(&stack.addresses(), CONNECTIONS / 2, REQUESTS_MAX, &format!("{TARGET}&x-status=500"));
    for gateway in [0, 1] {
        well.answers(STRETCH / 2).await;
        badly.answers(STRETCH / 2).await;
        stack.gateways[gateway].kill();
        well.answers(STRETCH / 2).await;
        badly.answers(STRETCH / 2).await;
        stack.gateways[gateway].start();
    }
    well.answers(STRETCH / 2).await;
    badly.answers(STRETCH / 2).await;
    let (well, badly) = (well.stop().await, badly.stop().await);
    assert!(badly.of(500) > STRETCH && well.of(200) > STRETCH, "{well:?} {badly:?}");
    let paid = well.of(200);
    let at_most = paid + well.of(0) + badly.of(0);
    let client = stack.listener_client(0);
    let counted = || client.used("app", "hits", v1::Period::Eternity);
    until_async("all failures to come back", || async {
        let used = counted().await.ok()?;
        (paid..=at_most).contains(&used).then_some(())
    })
    .await;
    for gateway in [0, 1] {
        until("leases to be settled", || {
            (metric(&stack, gateway, "weir_gateway_leases ") == 0).then_some(())
        });
        let waiting = "weir_gateway_outage_reports_waiting ";
        until("all to be told", || (metric(&stack, gateway, waiting) == 0).then_some(()));
    }
    let used = counted().await.expect("the listener answers");
    assert!((paid..=at_most).contains(&used), "{used} counted, {paid} answered 200, {well:?} {badly:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn free_failures_come_back_within_leases() {
    free_failures_come_back_under_kills(Plan::small(""), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_failures_come_back_from_listeners() {
    free_failures_come_back_under_kills(Plan::small(""), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_failures_come_back_over_redis() {
    free_failures_come_back_under_kills(Plan { listeners: 2, redis: true, ..Plan::small("") }, false).await;
}

/// Whom a story of kills may end.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Gateway(usize),
    Listener(usize),
    Redis,
}

impl Victim {
    const ALL: [Self; 7] = [
        Self::Gateway(0),
        Self::Gateway(1),
        Self::Gateway(2),
        Self::Gateway(3),
        Self::Listener(0),
        Self::Listener(1),
        Self::Redis,
    ];

    fn kill(self, stack: &mut Stack) {
        match self {
            Self::Gateway(at) => stack.gateways[at].kill(),
            Self::Listener(at) => stack.listeners[at].kill(),
            Self::Redis => stack.redis.as_mut().expect("a store").kill(),
        }
    }

    fn revive(self, stack: &mut Stack) {
        match self {
            Self::Gateway(at) => stack.gateways[at].launch(),
            Self::Listener(at) => stack.listeners[at].launch(),
            Self::Redis => stack.redis.as_mut().expect("a store").restart(),
        }
    }
}

/// A number of the environment that repeats a run, or one that was never before.
fn seed() -> u64 {
    let given = std::env::var("WEIR_KILLS_SEED").ok().map(|text| text.parse().expect("a number"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let seed = given.unwrap_or(now.as_secs());
    eprintln!("WEIR_KILLS_SEED={seed}");
    seed
}

/// The limit was reached, and never passed, once all are back.
async fn the_limit_is_reached_and_holds(stack: &Stack, load: Load) {
    let client = stack.listener_client(0);
    let is_reached = async || {
        // What counts as used since its holder died, or was counted for calls that got 503, may still come back, and be
        // used by others.
        let waiting = (0..stack.gateways.len()).map(|at| metric(stack, at, "weir_gateway_cancels_waiting "));
        let is_certain = waiting.sum::<u64>() == 0 && client.leases("app").await.ok()?.is_empty();
        let used = client.used("app", "hits", v1::Period::Eternity).await.ok()?;
        (is_certain && used == LIMIT).then_some(())
    };
    until_async("the limit to be used up, and to stay so", || async {
        is_reached().await?;
        // What a listener itself has to take back is seen by nobody.
        tokio::time::sleep(Duration::from_secs(1)).await;
        is_reached().await
    })
    .await;
    load.answers(200).await;
    let tally = load.stop().await;
    assert!(stack.upstream.received() <= LIMIT, "{} of {LIMIT} passed: {tally:?}", stack.upstream.received());
    stack.counter_settles_at("app", "hits", LIMIT).await;
}

/// Goal: gateways, listeners and the store die at random while a limit is reached, several at a time: not one call too
/// many passes, and once all are back the counter stands at the limit.
#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_passed_whoever_is_killed() {
    let limited = catalog(1, &format!("{{ metric = \"hits\", period = \"year\", max = {LIMIT} }}"));
    let plan = Plan { listeners: 2, gateways: 4, redis: true, journals: true, ..Plan::small(&limited) };
    let mut stack = Stack::start(&plan).await;
    let mut random = Random::of(seed(), 0);
    let load = Load::start(&stack.addresses(), 4 * CONNECTIONS, REQUESTS_MAX, TARGET);
    let mut dead: Vec<Victim> = vec![];
    for _ in 0..KILLS {
        load.answers(20 + random.below(80) as u64).await;
        let victim = *random.one_of(&Victim::ALL);
        eprintln!("kill {victim:?} after {} answers", load.answered());
        victim.kill(&mut stack);
        dead.push(victim);
        while dead.len() > random.below(3) {
            load.answers(20 + random.below(80) as u64).await;
            dead.remove(random.below(dead.len())).revive(&mut stack);
        }
    }
    dead.into_iter().for_each(|victim| victim.revive(&mut stack));
    for listener in &mut stack.listeners {
        // One that began while Redis was dead may have given up.
        listener.kill();
        listener.start();
    }
    stack.gateways.iter_mut().for_each(Role::wait_ready);
    the_limit_is_reached_and_holds(&stack, load).await;
}

/// Goal: Redis dies and its replica takes over, while a limit is reached: with `durability = "replicated"` not one call too
/// many passes, and what was admitted before is counted after.
#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_passed_in_a_fail_over() {
    let limited = catalog(1, &format!("{{ metric = \"hits\", period = \"year\", max = {LIMIT} }}"));
    let plan = Plan {
        listeners: 2,
        gateways: 4,
        redis: true,
        replicated: true,
        journals: true,
        ..Plan::small(&limited)
    };
    let mut stack = Stack::start(&plan).await;
    let load = Load::start(&stack.addresses(), 4 * CONNECTIONS, REQUESTS_MAX, TARGET);
    load.answers(LIMIT / 2).await;
    stack.fail_over();
    the_limit_is_reached_and_holds(&stack, load).await;
}

/// Goal: Redis dies and its replica takes over under load far from any limit: all that reached the upstream is counted.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_in_a_fail_over() {
    let plan = Plan { listeners: 2, gateways: 2, redis: true, replicated: true, ..Plan::small(&unlimited()) };
    let mut stack = Stack::start(&plan).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    load.answers(STRETCH).await;
    stack.fail_over();
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    assert_eq!(stack.upstream.received(), tally.of(200), "{tally:?}");
    stack.counter_settles_at("app", "hits", tally.of(200)).await;
}

/// Goal: two seconds after traffic stops nothing is held.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_idle_is_given_back() {
    let stack = Stack::start(&Plan { gateways: 2, ..Plan::small(&unlimited()) }).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    until("leases to be given back", || {
        let out: u64 = (0..2).map(|gateway| metric(&stack, gateway, "weir_gateway_leases ")).sum();
        (out == 0).then_some(())
    });
    stack.counter_settles_at("app", "hits", tally.of(200)).await;
}

/// Goal: a service that lets all calls pass in an outage answers them, and all of them are counted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_in_an_outage_is_counted_afterwards() {
    let limit = "{ metric = \"hits\", period = \"day\", max = 3 }";
    let plan = Plan { journals: true, ..Plan::small(&catalog_with(1, limit, "when_away = \"allow\"")) };
    let mut stack = Stack::start(&plan).await;
    assert_eq!(get(stack.gateways[0].address, TARGET).status, 200);
    stack.listeners[0].kill();
    for _ in 0..5 {
        assert_eq!(get(stack.gateways[0].address, TARGET).status, 200, "beyond the limit, too");
    }
    assert_eq!(get(stack.gateways[0].address, "/?user_key=nobodys").status, 200, "whoever calls");
    assert_eq!(metric(&stack, 0, "weir_gateway_outage_calls_total "), 6);
    stack.gateways[0].kill();
    stack.listeners[0].start();
    stack.gateways[0].start();
    stack.counter_settles_at("app", "hits", 6).await;
    assert_eq!(get(stack.gateways[0].address, TARGET).status, 429);
    assert_eq!(listener_metric(&stack, "weir_over_admitted_total "), 3, "beyond the limit of 3");
}

/// Goal: how much of what was reported lies beyond a limit is told, each transaction by itself.
async fn what_lies_beyond_a_limit_is_told(plan: Plan) {
    let stack = Stack::start(&plan).await;
    let client = stack.listener_client(0);
    let transaction = || v1::Transaction {
        application: Some(v1::transaction::Application::UserKey("key".into())),
        usage: vec![usage_entry("search", 5)],
        at_unix_s: None,
    };
    for (transactions, beyond) in [(1, 0), (2, 5), (1, 10)] {
        let transactions = (0..transactions).map(|_| transaction()).collect();
        client.report("api", transactions).await.expect("the listener counts");
        assert_eq!(listener_metric(&stack, "weir_over_admitted_total "), beyond);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_beyond_a_limit_is_told_alike_over_both_stores() {
    let limited = catalog(1, "{ metric = \"hits\", period = \"day\", max = 10 }");
    for redis in [false, true] {
        what_lies_beyond_a_limit_is_told(Plan { redis, ..Plan::small(&limited) }).await;
    }
}

/// Goal: what a killed gateway held counts as used until it is back, and how much of that was not used is told.
async fn what_a_killed_gateway_held_comes_back(plan: Plan) {
    let mut stack = Stack::start(&Plan { journals: true, ..plan }).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    load.answers(STRETCH).await;
    stack.gateways[0].kill();
    load.stop().await;
    let client = stack.listener_client(0);
    until_async("what it held to count as used", || async {
        let leases = client.leases("app").await.ok()?;
        leases.iter().any(|lease| lease.is_presumed).then_some(())
    })
    .await;
    let presumed = client.used("app", "hits", v1::Period::Eternity).await.expect("the listener answers");
    stack.gateways[0].start();
    until_async("it to come back", || async { client.leases("app").await.ok()?.is_empty().then_some(()) })
        .await;
    let used = client.used("app", "hits", v1::Period::Eternity).await.expect("the listener answers");
    assert!(used < presumed, "{used} used, {presumed} before");
    assert_eq!(listener_metric(&stack, "weir_under_admitted_total "), presumed - used);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_held_comes_back_to_the_embedded_store() {
    what_a_killed_gateway_held_comes_back(Plan::small(&unlimited())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_held_comes_back_to_redis() {
    what_a_killed_gateway_held_comes_back(Plan { redis: true, ..Plan::small(&unlimited()) }).await;
}

/// Calls are answered for so long.
async fn goes_on(load: &Load, long: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < long {
        load.answers(100).await;
    }
}

/// Goal: a key that is revoked while gateways decide by themselves is refused within a second of the listener's knowing,
/// and from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_under_leases_too() {
    let stack = Stack::start(&Plan { gateways: 2, ..Plan::small(&unlimited()) }).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    goes_on(&load, Duration::from_secs(1)).await;
    let limits = "{ metric = \"hits\", period = \"day\", max = 100_000_000 }";
    stack.put_catalog(&catalog(2, limits).replace("user_key = \"key\"", "user_key = \"another\""));
    let revision = "weir_gateway_configuration_revision ";
    until("gateways to hear of the change", || (metric(&stack, 0, revision) == 2).then_some(()));
    let known_at = Instant::now();
    for (at, gateway) in stack.gateways.iter().enumerate() {
        until("the key to be refused", || (get(gateway.address, TARGET).status == 403).then_some(()));
        assert_eq!(metric(&stack, at, "weir_gateway_lease_changes_total "), 1, "it was told");
    }
    assert!(known_at.elapsed() < Duration::from_secs(1), "{:?}", known_at.elapsed());
    let passed = stack.upstream.received();
    load.answers(STRETCH).await;
    load.stop().await;
    // Requests that were on their way as the last gateway learned of it.
    assert!(stack.upstream.received() <= passed + CONNECTIONS as u64);
}

/// Step 13 of the example's story: the listener is stopped under load and comes back.
async fn the_listener_goes_and_comes_back(when_away: &str) {
    let limit = "{ metric = \"hits\", period = \"day\", max = 100_000_000 }";
    let proxy = format!("when_away = \"{when_away}\"");
    let plan = Plan { gateways: 2, journals: true, ..Plan::small(&catalog_with(1, limit, &proxy)) };
    let mut stack = Stack::start(&plan).await;
    let load = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET);
    // Until leases are as large as they need be.
    goes_on(&load, Duration::from_secs(2)).await;
    stack.listeners[0].kill();
    match when_away {
        "deny" => load.refusals(50).await,
        // Longer than ordinary leases live.
        _ => goes_on(&load, Duration::from_secs(3)).await,
    }
    stack.listeners[0].start();
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    let passed = tally.of(200);
    assert_eq!(tally.total(), passed + tally.of(503), "{tally:?}");
    match when_away {
        "deny" => assert!(tally.of(503) > 0, "{tally:?}"),
        // Those that waited for a decision as the listener went.
        "allow_known" => assert!(tally.of(503) <= CONNECTIONS as u64, "{tally:?}"),
        _ => assert_eq!(tally.of(503), 0, "{tally:?}"),
    }
    assert_eq!(stack.upstream.received(), passed, "{tally:?}");
    stack.counter_settles_at("app", "hits", passed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_goes_and_comes_back_and_the_service_denies() {
    the_listener_goes_and_comes_back("deny").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_goes_and_comes_back_and_the_service_allows_who_is_known() {
    the_listener_goes_and_comes_back("allow_known").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_goes_and_comes_back_and_the_service_allows_all() {
    the_listener_goes_and_comes_back("allow").await;
}

/// Goal: under `allow_known` an application goes on in an outage, inside its limit, and a stranger does not.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_known_goes_on_inside_the_limit() {
    let limit = "{ metric = \"hits\", period = \"day\", max = 30 }";
    let plan = Plan::small(&catalog_with(1, limit, "when_away = \"allow_known\""));
    let mut stack = Stack::start(&plan).await;
    assert_eq!(get(stack.gateways[0].address, TARGET).status, 200);
    // The first answer only says which life of the store it is of.
    let answers = "weir_gateway_lease_answer_seconds_count ";
    until("a lease to be granted", || (metric(&stack, 0, answers) >= 2).then_some(()));
    stack.listeners[0].kill();
    assert_eq!(get(stack.gateways[0].address, "/?user_key=nobodys").status, 503);
    let mut passed = 1;
    while get(stack.gateways[0].address, TARGET).status == 200 {
        passed += 1;
        assert!(passed <= 30, "beyond the limit");
    }
    assert!(passed >= 10, "{passed} calls: half of what is left is held for an outage");
    stack.listeners[0].start();
    stack.counter_settles_at("app", "hits", passed).await;
}

/// Goal: `deny` is what happens unless the service chose otherwise, and it counts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_refused_in_an_outage_by_default() {
    let mut stack = Stack::start(&Plan::small(&unlimited())).await;
    assert_eq!(get(stack.gateways[0].address, TARGET).status, 200);
    stack.listeners[0].kill();
    // What is still held on lease may be spent.
    until("calls to be refused", || (get(stack.gateways[0].address, TARGET).status == 503).then_some(()));
    let received = stack.upstream.received();
    assert_eq!(get(stack.gateways[0].address, TARGET).status, 503);
    assert_eq!(stack.upstream.received(), received);
    stack.listeners[0].start();
    until("calls to pass again", || (get(stack.gateways[0].address, TARGET).status == 200).then_some(()));
    stack.counter_settles_at("app", "hits", received + 1).await;
}
