//! Everything that runs: one gateway and listener, nginx and HAProxy, and for each lane recorders behind them.
//!
//! A lane sends one case at a time, so that what arrives at its recorders and what its counters grow by came of that
//! case, whatever mutations did to its marker. Lanes run side by side.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weir_tests::foreign::Foreign;
use weir_tests::listener::ListenerClient;
use weir_tests::stack::{Plan, Stack};

use crate::client::{self, Heard};
use crate::corpus::{HOST, KEY};
use crate::mutate::Case;
use crate::proxies;
use crate::recorder::{Record, Recorder, What};
use crate::reference::{self, Script};
use crate::target;

/// How many cases are on their way at a time.
const LANES: usize = 8;
/// How long a proxy in front may say nothing before it counts as done.
const QUIET: Duration = Duration::from_millis(300);
/// How long counters may take to say what they should, and how long between two questions.
const GROWTH_MAX: Duration = Duration::from_secs(5);
const GROWTH_PAUSE: Duration = Duration::from_millis(10);

/// What stands between the gateway and a recorder.
pub(crate) const BEHIND: [&str; 3] = ["nothing", "nginx", "HAProxy"];

/// Everything that runs; ended when dropped.
pub(crate) struct World {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) nginx: Foreign,
    _haproxy: Foreign,
    _stack: Stack,
}

/// One case at a time.
pub(crate) struct Lane {
    /// Through the gateway, in the order of [`BEHIND`].
    routes: [Route; 3],
    /// nginx and HAProxy, without the gateway.
    others: [SocketAddr; 2],
    client: ListenerClient,
    /// What the first route's counters held when they were last asked.
    counted: Usage,
}

/// A way through the gateway: a service of its own.
struct Route {
    gateway: SocketAddr,
    host: String,
    recorder: Recorder,
}

/// Metrics and what they hold, or grew by.
pub(crate) type Usage = BTreeMap<String, u64>;

/// What came of a case on one way.
pub(crate) struct Seen {
    /// What was sent, as the reference reads it.
    pub(crate) script: Script,
    pub(crate) heard: Heard,
    pub(crate) records: Vec<Record>,
    /// The host that the case was for.
    pub(crate) host: String,
}

/// What came of a case through the gateway.
pub(crate) struct Outcome {
    /// In the order of [`BEHIND`].
    pub(crate) seen: [Seen; 3],
    /// What the counters of the first grew by.
    pub(crate) growth: Usage,
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut recorders = Vec::new();
        for _ in 0..LANES {
            recorders.push([Recorder::start().await, Recorder::start().await, Recorder::start().await]);
        }
        let upstreams = |at: usize| -> Vec<SocketAddr> {
            recorders.iter().map(|lane: &[Recorder; 3]| lane[at].address()).collect()
        };
        let (nginx, haproxy) = (proxies::nginx(&upstreams(1)), proxies::haproxy(&upstreams(2)));
        let backends: Vec<SocketAddr> =
            [upstreams(0), nginx.addresses.clone(), haproxy.addresses.clone()].concat();
        // A machine that is busy with something else is no reason to refuse.
        let gateway_lines = "[limits]\nauthorise_timeout_ms = 10000\n".to_owned();
        let stack = Stack::start(&Plan { gateway_lines, ..Plan::small(&catalog(&backends)) }).await;
        let lane = |(lane, recorders): (usize, [Recorder; 3])| {
            let mut services = (lane..).step_by(LANES);
            let routes = recorders.map(|recorder| Route {
                gateway: stack.gateways[0].address,
                host: host(services.next().expect("numbers have no end")),
                recorder,
            });
            Lane {
                routes,
                others: [nginx.addresses[lane], haproxy.addresses[lane]],
                client: stack.listener_client(0),
                counted: Usage::new(),
            }
        };
        let lanes = recorders.into_iter().enumerate().map(lane).collect();
        Self { lanes, nginx, _haproxy: haproxy, _stack: stack }
    }
}

impl Lane {
    /// Sends a case through the gateway, on all routes at once.
    pub(crate) async fn through_gateway(&mut self, case: &Case) -> Outcome {
        let [direct, nginx, haproxy] = &self.routes;
        let (direct, nginx, haproxy) = tokio::join!(direct.run(case), nginx.run(case), haproxy.run(case));
        let growth = self.growth(&direct.records).await;
        Outcome { seen: [direct, nginx, haproxy], growth }
    }

    /// Sends a case to nginx and to HAProxy as if they were the gateway.
    pub(crate) async fn through_others(&self, case: &Case) -> [Seen; 2] {
        let run = async |at: usize| {
            let script = reference::read_all(&case.bytes);
            let heard = client::overhear(self.others[at], &case.bytes, &case.cuts, &script, QUIET).await;
            Seen { script, heard, records: self.routes[at + 1].recorder.take(), host: HOST.to_owned() }
        };
        let (nginx, haproxy) = tokio::join!(run(0), run(1));
        [nginx, haproxy]
    }

    /// What the counters grew by since this was last asked. What a refusal for the body takes back is waited for:
    /// until they say what the recorder does, if they ever do.
    async fn growth(&mut self, records: &[Record]) -> Usage {
        let started = Instant::now();
        loop {
            let totals = self.client.totals(&self.routes[0].host, "app").await.expect("the listener answers");
            let by = |(metric, value): (&String, &u64)| {
                (metric.clone(), value.saturating_sub(*self.counted.get(metric).unwrap_or(&0)))
            };
            let growth: Usage = totals.iter().map(by).filter(|(_, value)| *value > 0).collect();
            if growth == usage_of(records) || started.elapsed() > GROWTH_MAX {
                self.counted = totals;
                return growth;
            }
            tokio::time::sleep(GROWTH_PAUSE).await;
        }
    }
}

impl Route {
    async fn run(&self, case: &Case) -> Seen {
        let bytes = case.at(&self.host);
        let script = reference::read_all(&bytes);
        let heard = client::converse(self.gateway, &bytes, &case.cuts, &script).await;
        Seen { script, heard, records: self.recorder.take(), host: self.host.clone() }
    }
}

/// What mapping rules make of what a recorder read: which method and path the gateway has to have matched.
pub(crate) fn usage_of(records: &[Record]) -> Usage {
    let mut usage = Usage::new();
    let requests = records.iter().filter_map(|record| match &record.what {
        What::Whole(request) => Some(request),
        What::Partial(_) | What::Irregular(_) => None,
    });
    for request in requests {
        let path = target::parse(&request.target).and_then(|target| target::decode(target.path));
        let is_below = |start: &[u8]| path.as_ref().is_some_and(|path| path.starts_with(start));
        let matched = [
            ("hits", true),
            ("gets", request.method == "GET"),
            ("posts", request.method == "POST"),
            ("deep", is_below(b"/deep")),
            ("canaries", is_below(b"/canary")),
        ];
        for (metric, _) in matched.iter().filter(|(_, is_matched)| *is_matched) {
            *usage.entry((*metric).to_owned()).or_default() += 1;
        }
    }
    usage
}

/// A host for each service; all of one length.
fn host(service: usize) -> String {
    format!("s{service:02}.test")
}

fn catalog(backends: &[SocketAddr]) -> String {
    let mut text = "revision = 1\n[[providers]]\nname = \"Differential test\"\n".to_owned();
    for (service, backend) in backends.iter().enumerate() {
        let host = host(service);
        write!(
            text,
            r#"
[[providers.services]]
id = "{host}"
credentials = "user_key"
metrics = [{{ name = "hits" }}, {{ name = "gets" }}, {{ name = "posts" }}, {{ name = "deep" }}, {{ name = "canaries" }}]
mapping_rules = [
  {{ method = "ANY", pattern = "/", metrics = {{ hits = 1 }} }},
  {{ method = "GET", pattern = "/", metrics = {{ gets = 1 }} }},
  {{ method = "POST", pattern = "/", metrics = {{ posts = 1 }} }},
  {{ method = "ANY", pattern = "/deep", metrics = {{ deep = 1 }} }},
  {{ method = "ANY", pattern = "/canary", metrics = {{ canaries = 1 }} }},
]
[providers.services.proxy]
hosts = ["{host}"]
api_backend = "http://{backend}"
credentials_location = "headers"
[[providers.services.plans]]
id = "plan"
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "{KEY}"
"#
        )
        .unwrap();
    }
    text
}
