//! What only Redis can do to us: be volatile, stall, die, lose its functions.

use std::time::Duration;

use weir_core::Secret;
use weir_core::lease::Declared;
use weir_store::{Ask, Config, OpenError, Recall, RedisConfig, RequestId, Store};
use weir_tests::redis::RedisServer;

use crate::events::told;
use crate::leases::{closing, hear, in_ms, incarnation, opening, said};
use crate::words::{app, apply, ask, publication, read, report, words};

async fn open(server: &RedisServer) -> Store {
    let store = Store::open(Config::Redis(RedisConfig::new(Secret::new(&server.url())))).await.unwrap();
    store.publish(publication(1, &["a", "b"])).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_lose_counters_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let mut config = RedisConfig::new(Secret::new(&server.url()));
    let refused = Store::open(Config::Redis(config.clone())).await;
    let Err(OpenError::Volatile(lines)) = refused else { panic!("accepted") };
    assert_eq!(lines, "  appendonly yes\n  maxmemory-policy noeviction");
    config.allow_volatile = true;
    assert!(Store::open(Config::Redis(config)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stalled_redis_did_late_is_taken_back() {
    let server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 1");
    assert_eq!(server.command("CLIENT PAUSE 600 ALL"), "+OK");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let ask = store.apply(ask("a", "hits=1<=99/day"));
                tokio::time::timeout(Duration::from_millis(250), ask).await.is_err()
            })
        })
        .collect();
    for task in asked {
        assert!(task.await.unwrap(), "no answer within the deadline");
    }
    weir_tests::wait::until_async("nothing but the first to be counted", || async {
        // A batch that the stall held back may run now, and its cancels right behind it.
        let settled = tokio::time::timeout(Duration::from_secs(1), read(&store, "a", "hits=0<=99/day")).await;
        (settled.as_deref() == Ok("ok 1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_still_wait_survive_a_short_stall() {
    let server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(server.command("CLIENT PAUSE 400 ALL"), "+OK");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { words(&store.apply(ask("b", "hits=1<=99/day")).await.unwrap()) })
        })
        .collect();
    for task in asked {
        assert!(task.await.unwrap().starts_with("ok"));
    }
    assert_eq!(read(&store, "b", "hits=0<=99/day").await, "ok 20", "asked twice, counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_recovers_from_a_kill_and_from_lost_functions() {
    let mut server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 1");
    server.kill();
    let away =
        tokio::time::timeout(Duration::from_millis(300), store.apply(ask("a", "hits=1<=99/day"))).await;
    assert!(away.is_err(), "nobody answers");
    server.restart();
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 2");
    assert_eq!(server.command("FUNCTION FLUSH"), "+OK");
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 3");
}

/// As it is with `durability = "replicated"`.
async fn open_replicated(server: &RedisServer) -> Store {
    let config = RedisConfig { replicas: 1, ..RedisConfig::new(Secret::new(&server.url())) };
    let store = Store::open(Config::Redis(config)).await.unwrap();
    store.publish(publication(1, &["a", "b"])).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_fail_over_to_a_replica() {
    let primary = RedisServer::start();
    let mut replica = RedisServer::start_replica_of(&primary);
    let store = open_replicated(&primary).await;
    let calls = (0..400).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.apply(ask("a", "hits=1<=999/day")).await.is_ok() })
    });
    let calls: Vec<_> = calls.collect();
    let asks_one_by_one = async {
        let mut answered = 0;
        while answered < 50 {
            answered += u64::from(apply(&store, "b", "hits=1<=999/day").await.starts_with("ok"));
        }
        answered
    };
    let answered = asks_one_by_one.await;
    replica.take_over(primary);
    let _next = RedisServer::start_replica_of(&replica);
    assert_eq!(read(&store, "b", "hits=0<=999/day").await, format!("ok {answered}"));
    let mut counted = 0;
    for call in calls {
        counted += u64::from(call.await.unwrap());
    }
    assert_eq!(read(&store, "a", "hits=0<=999/day").await, format!("ok {counted}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_without_a_replica() {
    let primary = RedisServer::start();
    let replica = RedisServer::start_replica_of(&primary);
    let store = open_replicated(&primary).await;
    drop(replica);
    let answer = tokio::time::timeout(Duration::from_secs(1), store.apply(ask("a", "hits=1<=99/day"))).await;
    assert!(answer.is_err(), "{answer:?}");
    let _replica = RedisServer::start_replica_of(&primary);
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 1", "what was not answered is taken back");
}

/// Ids that follow each other, as those of a gateway do, lie together in Redis.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_page_are_known_one_by_one() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let request = |number: u8| RequestId([[7; 15].as_slice(), &[number]].concat().try_into().unwrap());
    let asked = |number, attempt| Ask { request: request(number), attempt, ..ask("a", "hits=1<=999/day") };
    let count = async |number, attempt| words(&store.apply(asked(number, attempt)).await.unwrap());
    for number in 0..130 {
        assert_eq!(count(number, 0).await, format!("ok {}", u64::from(number) + 1));
    }
    for attempt in 1..4 {
        for number in 0..130 {
            assert_eq!(count(number, attempt).await, "ok 130", "asked again, counted once");
        }
    }
    for number in [0, 63, 64, 129] {
        assert!(store.cancel(&app("a"), request(number), Some(3)).await.unwrap());
        assert!(!store.cancel(&app("a"), request(number), None).await.unwrap(), "only once");
    }
    assert_eq!(read(&store, "a", "hits=0<=999/day").await, "ok 126");
    // However often one of them is asked for, a page does not grow for ever.
    for attempt in 4..2_000 {
        assert_eq!(count(1, attempt).await, "ok 126");
    }
    assert!(!store.cancel(&app("a"), request(0), None).await.unwrap(), "nor is anything dug up by that");
    let mut client = redis_client(&server).await;
    let page = "local longest = 0
        for _, key in ipairs(redis.call('KEYS', 'weir:{*}:recent*')) do
            for _, value in ipairs(redis.call('HVALS', key)) do longest = math.max(longest, #value) end
        end
        return longest";
    let longest: usize = ::redis::cmd("EVAL").arg(page).arg(0).query_async(&mut client).await.unwrap();
    assert!(longest < 40_000, "{longest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_shard_share_a_slot() {
    let server = RedisServer::start();
    let store = open(&server).await;
    apply(&store, "a", "hits=50<=99/minute").await;
    store.keep_error(&"api".parse().unwrap(), &crate::errors::error("a")).await.unwrap();
    let mut client = redis_client(&server).await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.len() > 10);
    for key in keys {
        let (tag, _) = key.strip_prefix("weir:{").and_then(|rest| rest.split_once('}')).unwrap();
        assert!(tag == "catalog" || tag.parse::<u16>().is_ok_and(|shard| shard < 4), "{key}");
        let ttl: i64 = ::redis::cmd("TTL").arg(&key).query_async(&mut client).await.unwrap();
        let expires = [":closed:", ":errors:", ":alerted:"].iter().any(|name| key.contains(name));
        assert_eq!(ttl > 0, expires, "{key} expires in {ttl} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_told_again_once_a_day_is_over() {
    let server = RedisServer::start();
    let store = open(&server).await;
    apply(&store, "a", "hits=5<=10/year").await;
    apply(&store, "a", "mail=5<=10/year").await;
    let first = ["first_traffic", "first_daily_traffic", "50 % hits per year: 5/10"];
    assert_eq!(told(&store, "a").await, first);
    let mut client = redis_client(&server).await;
    let flags: Vec<String> =
        ::redis::cmd("KEYS").arg("weir:{*}:alerted:*").query_async(&mut client).await.unwrap();
    let [flag] = &flags[..] else { panic!("{flags:?}") };
    assert!(flag.ends_with(":alerted:api/a:50"), "{flag}");
    let ttl_ms: i64 = ::redis::cmd("PTTL").arg(flag).query_async(&mut client).await.unwrap();
    assert!((86_340_000..=86_400_000).contains(&ttl_ms), "{ttl_ms}");
    // As if a day were over; and for the days of its traffic, as if it had been another.
    ::redis::cmd("DEL").arg(flag).query_async::<()>(&mut client).await.unwrap();
    let traffic = flag.replace(":alerted:api/a:50", ":traffic");
    let mut move_back = ::redis::cmd("HSET");
    move_back.arg(traffic).arg("api/a").arg("2020-02-29").query_async::<()>(&mut client).await.unwrap();
    apply(&store, "a", "disk=5<=10/year").await;
    let again = ["first_daily_traffic", "50 % disk per year: 5/10"];
    assert_eq!(told(&store, "a").await, [&first[..], &again].concat());
}

/// As if midnight had passed since: a counter that comes to its day takes along what is there, and is not at zero then.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_a_report_was_booked_to_ahead_is_told_when_it_comes() {
    let server = RedisServer::start();
    let store = open(&server).await;
    move_counter(&server, "api/a:hits", FAR_AHEAD, [0; 7]).await;
    store.report(report("", &[("a", "hits=1", None)])).await.unwrap();
    let first = ["first_traffic", "first_daily_traffic"];
    assert_eq!(told(&store, "a").await, first, "beside the counter, but of now");
    let script = "EVAL \"for _, key in ipairs(redis.call('KEYS', '*:traffic')) do redis.call('HSET', key, 'api/a', '') \
                  end\" 0";
    server.command(script);
    move_counter(&server, "api/a:hits", LEAP_DAY_END, [1; 7]).await;
    for expected in ["ok 2", "ok 3"] {
        assert_eq!(apply(&store, "a", "hits=1<=99/day").await, expected);
        assert_eq!(told(&store, "a").await, [&first[..], &first[1..]].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_with_the_batch_that_counts_however_often_that_is_sent() {
    let server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(server.command("CLIENT PAUSE 400 ALL"), "+OK");
    assert_eq!(apply(&store, "b", "hits=5<=10/day").await, "ok 5", "sent again after no answer");
    let expected = ["first_traffic", "first_daily_traffic", "50 % hits per day: 5/10"];
    assert_eq!(told(&store, "b").await, expected);
}

/// As if a counter had last changed in another minute.
async fn move_counter(server: &RedisServer, field: &str, minute: u64, held: [u64; 7]) {
    let script = "for _, key in ipairs(redis.call('KEYS', 'weir:{*}:versions')) do
            if redis.call('HEXISTS', key, ARGV[1]) == 1 then
                local values = {}
                for n = 3, #ARGV do values[n - 2] = tonumber(ARGV[n]) end
                local counts = string.gsub(key, 'versions', 'counts')
                redis.call('HSET', counts, ARGV[2], struct.pack('<dddddddd', unpack(values)))
            end
        end";
    let (application, _) = field.rsplit_once(':').unwrap();
    let mut call = ::redis::cmd("EVAL");
    call.arg(script).arg(0).arg(application).arg(field).arg(&held[..]).arg(minute);
    call.query_async::<()>(&mut redis_client(server).await).await.unwrap();
}

/// What a closed window holds of a metric, and for how many seconds more.
async fn closed(server: &RedisServer, application: &str, window: &str, metric: &str) -> Option<(u64, i64)> {
    let mut client = redis_client(server).await;
    let pattern = format!("*:closed:{application}:{window}");
    let keys: Vec<String> = ::redis::cmd("KEYS").arg(pattern).query_async(&mut client).await.unwrap();
    let key = keys.first()?;
    let held: u64 = ::redis::cmd("HGET").arg(key).arg(metric).query_async(&mut client).await.unwrap();
    let ttl: i64 = ::redis::cmd("TTL").arg(key).query_async(&mut client).await.unwrap();
    Some((held, ttl))
}

/// 2020-02-29T23:59
const LEAP_DAY_END: u64 = 26383679;
/// 2999-01-01T00:00
const FAR_AHEAD: u64 = 541202400;

const ALL: &str = "hits=0<=99/minute<=99/hour<=99/day<=99/week<=99/month<=99/year<=99/eternity";

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_ends_is_kept_and_the_next_begins_at_zero() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let most = (1 << 53) - 1;
    move_counter(&server, "api/a:hits", LEAP_DAY_END, [1, 2, 3, 4, 5, most, 7]).await;
    assert_eq!(read(&store, "a", ALL).await, "ok 0 0 0 0 0 0 7", "nothing but eternity goes on");
    assert_eq!(apply(&store, "a", "hits=2<=99/minute<=99/hour<=99/eternity").await, "ok 2 2 9");
    let windows = ["2020-02-29T23:59", "2020-02-29T23", "2020-02-29", "2020-W09", "2020-02", "2020"];
    for (window, expected) in windows.iter().zip([1, 2, 3, 4, 5, most]) {
        let (held, ttl) = closed(&server, "api/a", window, "hits").await.unwrap();
        assert_eq!(held, expected, "{window}");
        let kept = if window.len() == 16 { 120 } else { 73 * 3600 };
        assert!((kept - 10..=kept).contains(&ttl), "{window} is kept for {ttl} s");
    }
    let late = weir_core::Timestamp::from_unix_s((LEAP_DAY_END * 60).cast_signed());
    store.report(report("", &[("a", "hits=3", Some(late))])).await.unwrap();
    assert_eq!(read(&store, "a", ALL).await, "ok 2 2 2 2 2 2 12", "what comes late is not of now");
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_end_have_the_names_of_the_calendar() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let minute_of = |day: u64, minute: u64| day * 1440 + minute;
    // Ends of years and months, weeks of the year before and after, years without a leap day.
    let days =
        [0, 1, 58, 59, 364, 365, 789, 10_956, 11_016, 17_896, 18_262, 18_321, 18_627, 18_630, 20_088, 20_453];
    for minute in days.iter().flat_map(|day| [minute_of(*day, 0), minute_of(*day, 1439)]) {
        move_counter(&server, "api/b:mail", minute, [1, 2, 3, 4, 5, 6, 7]).await;
        assert_eq!(read(&store, "b", "mail=0<=99/eternity").await, "ok 7");
        let at = weir_core::Timestamp::from_unix_s((minute * 60).cast_signed());
        for (period, expected) in weir_core::Period::ALL.iter().zip(1..=6) {
            let window = period.window(at).to_string();
            let (held, _) = closed(&server, "api/b", &window, "mail").await.expect("a window of that name");
            assert_eq!(held, expected, "{window}");
        }
        server.command(
            "EVAL \"for _, key in ipairs(redis.call('KEYS', '*:closed:*')) do redis.call('DEL', key) end\" 0",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_clocks_have_closed_is_counted_and_taken_back_all_the_same() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let before = ask("a", "hits=5<=99/minute<=99/day");
    words(&store.apply(before.clone()).await.unwrap());
    // Nothing of now is the counter's own but eternity.
    move_counter(&server, "api/a:hits", FAR_AHEAD, [0, 0, 0, 0, 0, 0, 5]).await;
    let counted = ask("a", "hits=4<=99/minute<=99/hour<=99/eternity");
    assert_eq!(words(&store.apply(counted.clone()).await.unwrap()), "ok 4 4 9");
    assert_eq!(read(&store, "a", ALL).await, "ok 4 4 4 4 4 4 9");
    assert_eq!(apply(&store, "a", "hits=1<=4/year").await, "over 0: 4", "limits hold there, too");
    let set = ask("a", "hits=#1<=9/day");
    assert_eq!(words(&store.apply(set.clone()).await.unwrap()), "ok 1");
    assert!(store.cancel(&app("a"), set.request, None).await.unwrap());
    assert!(store.cancel(&app("a"), counted.request, None).await.unwrap());
    assert_eq!(read(&store, "a", ALL).await, "ok 0 0 0 0 0 0 5");
    assert!(store.cancel(&app("a"), before.request, None).await.unwrap());
    assert_eq!(read(&store, "a", ALL).await, "ok 0 0 0 0 0 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_early_is_there_when_its_window_comes() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let next_year = weir_core::Timestamp::from_unix_ms(i64::try_from(now_ms).unwrap() + 367 * 86_400_000);
    let year = weir_core::Period::Year.window(next_year).to_string();
    store.report(report("", &[("b", "hits=3", Some(next_year))])).await.unwrap();
    store.report(report("", &[("b", "hits=3", Some(next_year))])).await.unwrap();
    let (held, ttl) = closed(&server, "api/b", &year, "hits").await.unwrap();
    assert_eq!(held, 6);
    assert!(ttl > 367 * 86_400, "{year} is kept for {ttl} s");
    assert_eq!(read(&store, "b", "hits=0<=9/year<=9/eternity").await, "ok 0 6");

    // It comes: what was counted of it moves into the counter, once.
    let this_year = &year_of(now_ms);
    let mut client = redis_client(&server).await;
    let keys: Vec<String> =
        ::redis::cmd("KEYS").arg(format!("*:closed:api/b:{year}")).query_async(&mut client).await.unwrap();
    let come = keys[0].replace(&format!(":{year}"), &format!(":{this_year}"));
    ::redis::cmd("RENAME").arg(&keys[0]).arg(&come).query_async::<()>(&mut client).await.unwrap();
    move_counter(&server, "api/b:hits", LEAP_DAY_END, [0, 0, 0, 0, 0, 0, 6]).await;
    for expected in ["ok 7 7", "ok 8 8"] {
        assert_eq!(apply(&store, "b", "hits=1<=9/year<=9/eternity").await, expected);
    }
}

fn year_of(unix_ms: u128) -> String {
    let now = weir_core::Timestamp::from_unix_ms(i64::try_from(unix_ms).unwrap());
    weir_core::Period::Year.window(now).to_string()
}

async fn redis_client(server: &RedisServer) -> ::redis::aio::MultiplexedConnection {
    ::redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough() {
    let (_server, port, authority) = RedisServer::start_with_tls_and_user();
    let mut config = RedisConfig::new(Secret::new(&format!("rediss://weir:pass@localhost:{port}")));
    config.tls_ca_pem = Some(authority.into_bytes());
    let store = Store::open(Config::Redis(config)).await.unwrap();
    crate::errors::all(&store).await;
    crate::cases::all(&store).await;
    crate::leases::all(&store).await;
    crate::events::all(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recalls_reach_other_listeners_also_after_a_restart() {
    let mut server = RedisServer::start();
    let [here, there] = [open(&server).await, open(&server).await];
    let mut heard = there.recalls();
    for application in ["a", "b"] {
        weir_tests::wait::until_async("the recall to be heard", || {
            let next = heard.try_recv();
            let here = &here;
            async move {
                here.recall(&app(application)).await;
                (next.ok()? == Recall::Needed(app(application))).then_some(())
            }
        })
        .await;
        server.kill();
        server.restart();
    }
}

/// Makes what was counted and closed lately older by a generation.
async fn age(server: &RedisServer, store: &Store) {
    let script = "for _, key in ipairs(redis.call('KEYS', 'weir:{*}:recent')) do
            local since = redis.call('HGET', key, 'since')
            local aged = string.gsub(since, '%d+', function(ms) return string.format('%.0f', tonumber(ms) - 11000) end)
            redis.call('HSET', key, 'since', aged)
        end";
    let mut client = redis_client(server).await;
    ::redis::cmd("EVAL").arg(script).arg(0).query_async::<()>(&mut client).await.unwrap();
    read(store, "a", "hits=0<=10/year").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_the_memory_of_closed_ones() {
    const UNIT: &str = "hits=1<=10/year";
    let server = RedisServer::start();
    let store = open(&server).await;
    let held = || said("a", (1, 1, 1), &[(UNIT, [0, 0, 3])]);
    let closed = || said("a", (1, 2, 1), &[(UNIT, [2, 2, 0])]);
    assert_eq!(hear(&store, opening(closed())).await, "short", "it wants nothing");
    assert_eq!(hear(&store, opening(held())).await, "granted 3");
    let last_word = |incarnation| {
        let mut ask = closing(closed());
        ask.message.declared = Some(Declared { incarnation, moment: in_ms(-60_000) });
        ask
    };
    let forgotten = last_word(incarnation(&store).await + 1);
    assert_eq!(hear(&store, forgotten.clone()).await, "closed");
    age(&server, &store).await;
    assert_eq!(hear(&store, opening(closed())).await, "closed", "it is remembered");
    assert_eq!(apply(&store, "a", "hits=8<=10/year").await, "over 0: 0", "3 are held");
    for _ in 0..2 {
        age(&server, &store).await;
    }
    assert_eq!(hear(&store, forgotten).await, "closed");
    assert_eq!(
        apply(&store, "a", "hits=8<=10/year").await,
        "over 0: 0",
        "nobody knows whether it was counted"
    );
    assert_eq!(apply(&store, "a", "hits=7<=10/year").await, "ok 7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_is_another_life_and_knows_its_leases() {
    const UNIT: &str = "hits=1<=10/year";
    let mut server = RedisServer::start();
    let store = open(&server).await;
    let lasting = |round, spent_and_more| {
        let mut ask = said("a", (1, 1, round), &[(UNIT, spent_and_more)]);
        ask.message.lasts_ms = 60_000;
        ask
    };
    assert_eq!(hear(&store, opening(lasting(1, [0, 0, 3]))).await, "granted 3");
    let before = incarnation(&store).await;
    server.kill();
    server.restart();
    let after = incarnation(&store).await;
    assert!(before != after && before > 0 && after > 0, "{before} {after}");
    let mut renewed = lasting(2, [2, 3, 2]);
    renewed.message.declared = Some(Declared { incarnation: before, moment: in_ms(0) });
    assert_eq!(hear(&store, renewed).await, "granted 4");
    assert_eq!(apply(&store, "a", "hits=7<=10/year").await, "over 0: 2", "2 are held");
    assert_eq!(apply(&store, "a", "hits=6<=10/year").await, "ok 8");
}
