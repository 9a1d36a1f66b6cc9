//! A whole data plane of real processes: an upstream, listeners over one store, gateways.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use weir_proto::v1;

use crate::http;
use crate::listener::ListenerClient;
use crate::process::Process;
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use crate::wait::{free_port, until, until_async};

/// The token of the stack's gateways.
pub const TOKEN: &str = "stack-gateway-token";

/// What a stack is made of.
pub struct Plan {
    /// How many listeners.
    pub listeners: usize,
    /// How many gateways.
    pub gateways: usize,
    /// Lines of `[store]` and below that replace what `redis` says.
    pub store: Option<String>,
    /// Over Redis, else over the embedded store (then one listener).
    pub redis: bool,
    /// Redis has a replica, which has to have what is answered.
    pub replicated: bool,
    /// The catalog; `{upstream}` stands for the upstream's URL.
    pub catalog: String,
    /// Further lines for each gateway's file.
    pub gateway_lines: String,
    /// Further lines in front of each listener's file.
    pub listener_lines: String,
    /// Gateways reach listeners by `https://`.
    pub tls_between: bool,
    /// Further tables at the end of each listener's file.
    pub listener_tables: String,
    /// Whether gateways have a folder for their state, and so a journal.
    pub journals: bool,
    /// Whether listeners read the catalog file; else `listener_lines` names a publish token.
    pub catalog_file: bool,
}

impl Plan {
    /// One listener over the embedded store and one gateway, for a catalog.
    pub fn small(catalog: &str) -> Self {
        Self {
            listeners: 1,
            gateways: 1,
            store: None,
            redis: false,
            replicated: false,
            catalog: catalog.to_owned(),
            gateway_lines: String::new(),
            listener_lines: String::new(),
            tls_between: false,
            listener_tables: String::new(),
            journals: false,
            catalog_file: true,
        }
    }
}

/// One role's process and addresses.
pub struct Role {
    process: Option<Process>,
    arguments: [String; 3],
    log: PathBuf,
    /// Where it serves: gRPC for a listener, HTTP for a gateway.
    pub address: SocketAddr,
    /// Where its metrics and health are.
    pub telemetry: SocketAddr,
    /// A listener's HTTP port.
    pub http: Option<SocketAddr>,
}

impl Role {
    fn new(role: &str, config: &Path, address: SocketAddr, telemetry: SocketAddr) -> Self {
        let arguments = [role, "--config", &config.display().to_string()].map(str::to_owned);
        let log = config.with_extension("log");
        Self { process: None, arguments, log, address, telemetry, http: None }
    }

    /// Starts it, again if need be, and waits until it is ready.
    pub fn start(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.process = Some(Process::start(&arguments, &self.log));
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    pub fn wait_ready(&mut self) {
        let (telemetry, process) = (self.telemetry, self.process.as_mut().expect("started"));
        until("a role to be ready", || {
            if let Some(status) = process.ended() {
                panic!("the role ended with {status}:\n{}", process.log());
            }
            let listens = std::net::TcpStream::connect(telemetry).is_ok();
            (listens && http::get(telemetry, "/readyz").status == 200).then_some(())
        });
    }

    /// Waits until its telemetry answers, ready or not.
    ///
    /// # Panics
    /// When it does not run.
    pub fn wait_live(&mut self) {
        let telemetry = self.telemetry;
        until("a role to be live", || std::net::TcpStream::connect(telemetry).ok());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("started").signal(name);
    }

    /// Asks it to stop and waits.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("started").terminate()
    }

    /// Waits until it has stopped.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub fn wait_stopped(&mut self) -> ExitStatus {
        self.process.take().expect("started").wait_stopped()
    }

    /// The most memory that it ever had in use.
    ///
    /// # Panics
    /// When it does not run.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.process.as_ref().expect("started").memory_peak_bytes()
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A running data plane; ended when dropped.
pub struct Stack {
    /// The API behind the gateways.
    pub upstream: Upstream,
    /// The store, when it is Redis.
    pub redis: Option<RedisServer>,
    /// Its replica, when it has one.
    pub replica: Option<RedisServer>,
    /// The listeners.
    pub listeners: Vec<Role>,
    /// The gateways.
    pub gateways: Vec<Role>,
    dir: tempfile::TempDir,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Stack {
    /// Starts everything and waits until it is ready.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(plan: &Plan) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let upstream = Upstream::start().await;
        let redis = plan.redis.then(RedisServer::start);
        let primary = redis.as_ref().filter(|_| plan.replicated);
        let replica = primary.map(RedisServer::start_replica_of);
        let mut stack = Self { upstream, redis, replica, listeners: vec![], gateways: vec![], dir };
        stack.write("secrets.txt", "one stack-server-secret\n");
        stack.put_catalog(&plan.catalog);
        for number in 0..plan.listeners {
            let role = stack.listener(number, plan);
            stack.listeners.push(role);
        }
        for number in 0..plan.gateways {
            let role = stack.gateway(number, plan);
            stack.gateways.push(role);
        }
        stack.listeners.iter_mut().chain(&mut stack.gateways).for_each(Role::launch);
        if plan.catalog_file {
            stack.listeners.iter_mut().chain(&mut stack.gateways).for_each(Role::wait_ready);
        } else {
            // Nobody is ready before something is published.
            stack.listeners.iter_mut().for_each(Role::wait_live);
        }
        stack
    }

    fn listener(&self, number: usize, plan: &Plan) -> Role {
        let (grpc, telemetry) = (loopback(free_port()), loopback(free_port()));
        let store = match &self.redis {
            _ if plan.store.is_some() => plan.store.clone().unwrap_or_default(),
            Some(redis) => {
                let durability = if plan.replicated { "replicated" } else { "primary" };
                let url = redis.url();
                format!("kind = \"redis\"\n[store.redis]\nurl = \"{url}\"\ndurability = \"{durability}\"")
            }
            None => format!("kind = \"embedded\"\n[store.embedded]\ndir = \"store-{number}\""),
        };
        let catalog = if plan.catalog_file { "catalog = \"catalog.toml\"\n" } else { "" };
        let http = loopback(free_port());
        let text = format!(
            "{}\ngrpc_address = \"{grpc}\"\nhttp_address = \"{http}\"\ntelemetry_address = \"{telemetry}\"\n\
             {catalog}key_hash_secret_file = \"secrets.txt\"\n[store]\n{store}\n\
             [[gateways]]\nid = \"stack\"\nenvironment = \"production\"\ntoken = \"{TOKEN}\"\n{}\n",
            plan.listener_lines, plan.listener_tables
        );
        let path = self.write(&format!("listener-{number}.toml"), &text);
        Role { http: Some(http), ..Role::new("listener", &path, grpc, telemetry) }
    }

    fn gateway(&self, number: usize, plan: &Plan) -> Role {
        let (address, telemetry) = (loopback(free_port()), loopback(free_port()));
        let scheme = if plan.tls_between { "https" } else { "http" };
        // Each gateway prefers another listener.
        let mut addresses: Vec<String> =
            self.listeners.iter().map(|role| format!("\"{scheme}://{}\"", role.address)).collect();
        addresses.rotate_left(number % plan.listeners);
        let state =
            if plan.journals { format!("state_dir = \"gateway-{number}-state\"\n") } else { String::new() };
        let text = format!(
            "{state}environment = \"production\"\naddress = \"{address}\"\ntelemetry_address = \"{telemetry}\"\n\
             listeners = [{}]\ntoken = \"{TOKEN}\"\n{}\n",
            addresses.join(", "),
            plan.gateway_lines
        );
        let path = self.write(&format!("gateway-{number}.toml"), &text);
        Role::new("gateway", &path, address, telemetry)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let draft = self.dir.path().join(format!("{name}.draft"));
        std::fs::write(&draft, text).expect("a file in the stack's folder");
        std::fs::rename(&draft, &path).expect("a file in the stack's folder");
        path
    }

    /// Kills Redis; its replica takes its place, and has a replica of its own then.
    ///
    /// # Panics
    /// When there is none.
    pub fn fail_over(&mut self) {
        let (primary, replica) = (self.redis.take().expect("a store"), self.replica.take());
        let mut replica = replica.expect("a replica");
        replica.take_over(primary);
        self.replica = Some(RedisServer::start_replica_of(&replica));
        self.redis = Some(replica);
    }

    /// Replaces the catalog file, as its owner would edit it.
    pub fn put_catalog(&self, catalog: &str) {
        let url = format!("http://{}", self.upstream.address());
        self.write("catalog.toml", &catalog.replace("{upstream}", &url));
    }

    /// Where the gateways' clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|role| role.address).collect()
    }

    /// Asks a listener as a gateway would.
    pub fn listener_client(&self, number: usize) -> ListenerClient {
        ListenerClient::new(self.listeners[number].address, TOKEN)
    }

    /// Waits until a counter holds a value, taking-back included, and then checks that it stays there.
    ///
    /// # Panics
    /// When it never does, with what it holds instead.
    pub async fn counter_settles_at(&self, app_id: &str, metric: &str, expected: u64) {
        let client = self.listener_client(0);
        let mut last = None;
        let settled = async {
            until_async("the counter to settle", || async {
                let used = client.used(app_id, metric, v1::Period::Eternity).await.ok();
                (used == Some(expected)).then_some(())
            })
            .await;
        };
        if tokio::time::timeout(std::time::Duration::from_secs(10), settled).await.is_err() {
            last = client.used(app_id, metric, v1::Period::Eternity).await.ok();
        }
        assert_eq!(last, None, "{metric} of {app_id} should hold {expected}");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let used = client.used(app_id, metric, v1::Period::Eternity).await.expect("the listener answers");
        assert_eq!(used, expected, "{metric} of {app_id} moved on");
    }
}

/// The same catalog with further lines for the service's proxy.
pub fn catalog_with(revision: u64, limits: &str, proxy_lines: &str) -> String {
    let hosts = "hosts = [\"api.test\"]\n";
    catalog(revision, limits).replace(hosts, &format!("{hosts}{proxy_lines}\n"))
}

/// A catalog of one service `api` at host `api.test` in `user_key` mode, one application `app` with the key `key`
/// under a plan with these limits.
pub fn catalog(revision: u64, limits: &str) -> String {
    format!(
        r#"
revision = {revision}
[[providers]]
name = "Stack"
[[providers.services]]
id = "api"
name = "API"
credentials = "user_key"
metrics = [{{ name = "hits" }}, {{ name = "search", parent = "hits" }}]
mapping_rules = [{{ method = "GET", pattern = "/", metrics = {{ search = 1 }} }}]
[providers.services.proxy]
hosts = ["api.test"]
api_backend = "{{upstream}}"
[[providers.services.plans]]
id = "plan"
name = "Plan"
limits = [{limits}]
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
"#
    )
}
