//! Leases: what a steady stream of calls costs listener and store, what a long way to the listener costs calls, and
//! whether all of it is counted.
//!
//! Two gateways of one listener over Redis, one beside it and one 100 ms away in each direction. Each application gets a
//! hundred calls a second through each gateway, for longer than a minute, so that a window ends meanwhile. One more
//! application with a small limit gets as much through both until well after it is reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use weir_proto::{Unsettled, v1};

use crate::catalog::{self, Api};
use crate::delay::Delay;
use crate::figure::Figure;
use crate::lab::Lab;
use crate::load::http::get;
use crate::origin::Origin;
use crate::peers::Redis;
use crate::question::{SERVICE, TOKEN, client, signed};
use crate::turns::count;
use crate::weir::{AccessLog, Catalog, Gateway, Listener, Store};

const APPLICATIONS: usize = 20;
const RULES: usize = 10;
/// A hundred calls a second.
const PAUSE: Duration = Duration::from_millis(10);
const AWAY: Duration = Duration::from_millis(100);
/// Until leases are as large as they need be.
const WARM_UP: Duration = Duration::from_secs(4);
/// Longer than a minute: one ends meanwhile.
const FULL: Duration = Duration::from_secs(65);
const QUICK: Duration = Duration::from_secs(8);
/// What the application with a small limit may use.
const SMALL_LIMIT: u64 = 1_000;
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 4_096;
/// How long counters may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let origin = Origin::start().await?;
    let api = Api::leased(SERVICE, RULES, APPLICATIONS);
    let limited = Api { limit: SMALL_LIMIT, ..Api::leased("limited", RULES, 1) };
    let apis = [api, limited];
    let redis = Redis::start(lab, "lease-redis").await?;
    let text = catalog::text(origin.address, &apis);
    let store = Store::Redis(redis.address);
    let listener = Listener::start(lab, "lease-listener", &store, &Catalog::File(&text), &[]).await?;
    let near = Delay::start(listener.grpc, Duration::ZERO).await?;
    let far = Delay::start(listener.grpc, AWAY).await?;
    let gateway = async |name: &str, way: &Delay| {
        let mut gateway = Gateway::start_to(lab, name, way.address, TOKEN, AccessLog::Off).await?;
        gateway.wait_for(&apis[0].host(), &apis[0].target(0, 0)).await?;
        anyhow::Ok(gateway)
    };
    let (near_gateway, far_gateway) =
        (gateway("near-gateway", &near).await?, gateway("far-gateway", &far).await?);
    let addresses = [near_gateway.address, far_gateway.address];
    let took = if lab.scale.quick { QUICK } else { FULL };
    let admitted_before = totals(&listener, &apis).await?;
    eprintln!("  {APPLICATIONS} applications, a hundred calls a second each, through two gateways: {took:?}");
    let steady = Steady::run(&apis[0], addresses, WARM_UP).await?;
    let before = Cost::read(&listener, &near).await?;
    let measured = Steady::run(&apis[0], addresses, took).await?;
    let cost = Cost::read(&listener, &near).await?.since(&before);
    let small = Steady::run(&apis[1], addresses, Duration::from_secs(5)).await?;
    let counted = totals(&listener, &apis).await?;
    let admitted = steady.admitted() + measured.admitted();
    let grown = counted[0] - admitted_before[0];
    let lost_or_doubled =
        grown.abs_diff(admitted) + (counted[1] - admitted_before[1]).abs_diff(small.admitted());
    Ok(figures(&measured, &cost, small.admitted().saturating_sub(SMALL_LIMIT), lost_or_doubled))
}

fn figures(measured: &Steady, cost: &Cost, over_admitted: u64, lost_or_doubled: u64) -> Vec<Figure> {
    let one = |name: &str, title: &str, unit, value: f64| Figure::new(name, title, unit, Ok(vec![value]));
    let [near, far] = [0, 1].map(|at| &measured.through[at]);
    let requests = count(measured.admitted());
    let near_requests = count(near.admitted);
    let (near_p99, far_p99) = (near.percentile_ms(99.0), far.percentile_ms(99.0));
    vec![
        one(
            "lease_store_calls_per_request",
            "Calls to Redis for a request, 100 a second for an application and gateway",
            "calls",
            count(cost.store_calls) / requests,
        )
        .at_most(0.02),
        one(
            "lease_listener_bytes_per_request",
            "Bytes between gateway and listener for a request, both ways",
            "bytes",
            count(cost.bytes) / near_requests,
        ),
        one("lease_near_p99_ms", "A request, listener near by, 99th percentile", "ms", near_p99),
        one("lease_far_p99_ms", "The same, listener 100 ms away in each direction", "ms", far_p99),
        one("lease_wan_p99_added_ms", "What the way adds to it", "ms", far_p99 - near_p99).at_most(1.0),
        // Told as what is lacking, so that less is better, as everywhere.
        one(
            "lease_wan_throughput_ratio",
            "Requests near by for each with the listener far away",
            "times",
            near_requests / count(far.admitted),
        )
        .at_most(1.05),
        one(
            "over_admitted",
            "Calls beyond a limit of 1,000, both gateways at once",
            "calls",
            count(over_admitted),
        )
        .at_most(0.0),
        one("lost_or_doubled", "Calls admitted and not counted once", "calls", count(lost_or_doubled))
            .at_most(0.0),
    ]
}

/// What was read of listener and way.
struct Cost {
    store_calls: u64,
    bytes: u64,
}

impl Cost {
    async fn read(listener: &Listener, way: &Delay) -> anyhow::Result<Self> {
        let metrics = listener.metrics().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("weir_store_calls_total "));
        let store_calls = line.context("no count of calls to the store")?.parse()?;
        Ok(Self { store_calls, bytes: way.bytes() })
    }

    fn since(&self, before: &Self) -> Self {
        Self { store_calls: self.store_calls - before.store_calls, bytes: self.bytes - before.bytes }
    }
}

/// What came of calls at a steady rate.
struct Steady {
    through: [Through; 2],
}

/// Through one gateway.
#[derive(Default)]
struct Through {
    admitted: u64,
    /// Of those that were admitted.
    took_us: Vec<u32>,
}

impl Steady {
    async fn run(api: &Api, addresses: [SocketAddr; 2], took: Duration) -> anyhow::Result<Self> {
        let until = Instant::now() + took;
        let mut lanes = JoinSet::new();
        for (at, address) in addresses.into_iter().enumerate() {
            for application in 0..api.applications {
                let request: Arc<[u8]> = get(&api.host(), &api.target(application, application)).into();
                lanes.spawn(async move { lane(address, request, until).await.map(|through| (at, through)) });
            }
        }
        let mut through = [Through::default(), Through::default()];
        while let Some(lane) = lanes.join_next().await {
            let (at, lane) = lane??;
            through[at].admitted += lane.admitted;
            through[at].took_us.extend(lane.took_us);
        }
        through.iter_mut().for_each(|through| through.took_us.sort_unstable());
        Ok(Self { through })
    }

    fn admitted(&self) -> u64 {
        self.through.iter().map(|through| through.admitted).sum()
    }
}

impl Through {
    fn percentile_ms(&self, percentile: f64) -> f64 {
        let rank = (count(self.took_us.len() as u64) * percentile / 100.0).ceil();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
        let at = (rank as usize).clamp(1, self.took_us.len().max(1)) - 1;
        self.took_us.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
    }
}

/// One application's calls through one gateway, each when it is due or when the one before is over.
async fn lane(address: SocketAddr, request: Arc<[u8]>, until: Instant) -> anyhow::Result<Through> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut due = interval(PAUSE);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut through = Through::default();
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    while Instant::now() < until {
        due.tick().await;
        let begun = Instant::now();
        stream.write_all(&request).await?;
        match answer(&mut stream, &mut buffer).await? {
            200 => {
                through.admitted += 1;
                through.took_us.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            429 => {}
            status => anyhow::bail!("answered {status}"),
        }
    }
    Ok(through)
}

async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<u16> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection was closed, or the answer is too long");
        filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(bytes) = head.parse(&buffer[..filled])? else { continue };
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.context("an answer without length")?;
        let length: usize = std::str::from_utf8(length.value)?.parse()?;
        if filled >= bytes + length {
            return head.code.context("no status");
        }
    }
}

/// What each service's applications have counted of their methods, once it is settled.
async fn totals(listener: &Listener, apis: &[Api]) -> anyhow::Result<Vec<u64>> {
    let mut client = client(listener.grpc).await?;
    let mut totals = vec![];
    for api in apis {
        let mut total = 0;
        for number in 0..api.applications {
            let question = v1::UsageRequest {
                service_id: api.id.clone(),
                app_id: format!("app-{number}"),
                metrics: vec!["hits".into()],
            };
            let mut ask = async || anyhow::Ok(client.usage(signed(question.clone())?).await?.into_inner());
            let (unsettled, begun) = (Unsettled::of(ask().await?), Instant::now());
            while !unsettled.is_settled_in(&ask().await?) {
                ensure!(begun.elapsed() < SETTLE_MAX, "leases do not settle: {unsettled:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let used: BTreeMap<i32, u64> =
                ask().await?.counters.iter().map(|counter| (counter.period, counter.used)).collect();
            total += used.get(&v1::Period::Eternity.into()).copied().unwrap_or_default();
        }
        totals.push(total);
    }
    Ok(totals)
}
