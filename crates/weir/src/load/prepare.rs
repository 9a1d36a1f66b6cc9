//! From the command line, and the files it names, to a plan: everything that is wrong is found before anything is sent.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_core::{Secret, Timestamp};
use weir_load::{
    Call, CallKind, Expected, Group, LIMITS, Limits, Listener, Mix, Plan, Protocol, Stage, Template,
    TlsError, TlsOptions, TlsSettings, UsageCheck,
};

use super::from_catalog::{self, Wanted};
use super::mix_file::{self, MixFile};
use super::target::{self, Located, Scheme};
use super::{Api, Arguments, authrep, rates};
use crate::argument_file;
use crate::problem::{Checked, Problem, Reading};
use crate::report::Source;

/// Longest wait for an answer that can be asked for.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// All that a run needs.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    /// What is compared, and with whom.
    pub(super) usage: Option<(UsageCheck, Listener)>,
}

/// Secrets that the environment may hold.
#[derive(Default)]
pub(super) struct Variables {
    pub(super) token: Option<OsString>,
    pub(super) provider_key: Option<OsString>,
}

impl Variables {
    /// Those of this process.
    pub(super) fn read() -> Self {
        Self {
            token: std::env::var_os("WEIR_LOAD_TOKEN"),
            provider_key: std::env::var_os("WEIR_LOAD_PROVIDER_KEY"),
        }
    }
}

/// Reads and checks everything.
///
/// # Errors
/// All that is wrong.
pub(super) fn prepare(arguments: &Arguments, variables: Variables) -> Reading<Prepared> {
    let mut problems = Problems::default();
    let mix = problems.reading(read_mix(arguments));
    let targets = targets(arguments, mix.as_ref(), &mut problems);
    let scheme = targets.first().map_or(Scheme::Http, |located| located.scheme);
    let stages = stages(arguments, mix.as_ref(), &mut problems);
    let mut groups = groups(arguments, mix, &targets, &mut problems);
    let token = secret(&arguments.how.token_file, "--token-file", variables.token, "WEIR_LOAD_TOKEN");
    let token = problems.one(token).flatten();
    let pem = Pem::read(arguments, &mut problems);
    let tls = scheme.is_tls().then(|| pem.settings(arguments.how.server_name.as_deref()));
    let tls = problems.one(tls.transpose()).flatten();
    let protocol = protocol(arguments, scheme, &groups);
    if protocol == Protocol::Decisions {
        check_decisions(&groups, token.as_ref(), &mut problems);
    }
    let is_authrep = matches!(protocol, Protocol::Authrep { .. });
    if is_authrep {
        authrep::prove(arguments, variables.provider_key, scheme, &mut groups, &mut problems);
    }
    let mix = Arc::new(Mix::new(groups));
    if is_authrep && !mix.authreps_fit() {
        problems.add("--api", "a call's usage and credentials do not fit into a URL of 60 KiB");
    }
    let usage = usage(arguments, &mix, token.as_ref(), &pem, &mut problems);
    if arguments.how.timeout.0 > TIMEOUT_MAX {
        problems.add("--timeout", "is longer than 10 minutes");
    }
    let plan = Plan {
        protocol,
        targets: targets.into_iter().map(|located| located.target).collect(),
        tls,
        token,
        stages,
        arrivals: arguments.when.arrivals.into(),
        seed: arguments.when.seed.unwrap_or_else(any_seed),
        mix,
        compares_counters: usage.is_some(),
        limits: limits(arguments, protocol),
    };
    problems.into_reading(Prepared { plan, usage })
}

fn check_decisions(groups: &[Group], token: Option<&Secret>, problems: &mut Problems) {
    if token.is_none() {
        problems.add("--token-file", "is missing: a listener answers nobody without a gateway's token");
    }
    check_services(groups, problems);
}

/// Who asks a listener about a call says whose it is.
pub(super) fn check_services(groups: &[Group], problems: &mut Problems) {
    if groups.iter().any(|group| group.service.is_none()) {
        problems.add("URL", "a listener must be told the service: give each service of a mix its id");
    }
}

/// Collects what is wrong, and what is odd.
#[derive(Default)]
pub(super) struct Problems {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, argument: &str, message: &str) {
        self.errors.push(Problem::of_argument(argument, message));
    }

    pub(super) fn one<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.errors.push(problem)).ok()
    }

    fn reading<T>(&mut self, reading: Reading<T>) -> Option<T> {
        match reading {
            Ok(Checked { value, warnings }) => {
                self.warnings.extend(warnings);
                Some(value)
            }
            Err(problems) => {
                self.errors.extend(problems);
                None
            }
        }
    }

    fn into_reading<T>(self, value: T) -> Reading<T> {
        if self.errors.is_empty() { Ok(Checked { value, warnings: self.warnings }) } else { Err(self.errors) }
    }
}

fn read_mix(arguments: &Arguments) -> Reading<MixFile> {
    match &arguments.what.mix {
        Some(path) => mix_file::parse(&Source::load(path).map_err(|problem| vec![problem])?),
        None => Ok(Checked { value: MixFile::default(), warnings: vec![] }),
    }
}

/// `mix`: as far as it could be read.
fn targets(arguments: &Arguments, mix: Option<&MixFile>, problems: &mut Problems) -> Vec<Located> {
    let of_mix = mix.map_or(&[] as &[String], |mix| &mix.targets);
    let urls = if arguments.targets.is_empty() { of_mix } else { &arguments.targets };
    if urls.is_empty() && mix.is_some() {
        problems.add("URL", "is missing: give a target such as http://127.0.0.1:8080");
    }
    let mut targets = Vec::new();
    for url in urls {
        targets.extend(problems.one(target::locate(url, arguments.how.i_own_this_host)));
    }
    if targets.windows(2).any(|pair| pair[0].scheme != pair[1].scheme) {
        problems.add("URL", "targets must all be of one kind: http, https, grpc or grpcs");
    }
    let is_quick = arguments.what.mix.is_none() && arguments.what.from_catalog.is_none();
    if let Some(target) = targets.iter().find(|target| target.path.is_some() && !is_quick) {
        problems.add(&target.target.authority, "a target has no path where a mix says what is called");
    }
    targets
}

/// What is called: as the mix says, as the catalog does, or the path of the URL.
fn groups(
    arguments: &Arguments,
    mix: Option<MixFile>,
    targets: &[Located],
    problems: &mut Problems,
) -> Vec<Group> {
    if let Some(path) = &arguments.what.from_catalog {
        let is_decisions = targets.first().is_some_and(|target| target.scheme.is_decisions());
        let wanted = Wanted {
            services: &arguments.what.services,
            applications: &arguments.what.applications,
            needs_host: !is_decisions && arguments.how.api.is_none(),
        };
        let source = Source::load(path).map_err(|problem| vec![problem]);
        let groups = source.and_then(|source| from_catalog::groups(&source, &wanted, now()));
        return problems.reading(groups).unwrap_or_default();
    }
    match targets.first() {
        Some(target) if arguments.what.mix.is_none() => {
            problems.one(quick(target, &arguments.what.headers)).into_iter().collect()
        }
        _ => mix.map(|mix| mix.groups).unwrap_or_default(),
    }
}

/// One GET, without knowing whose it is.
fn quick(target: &Located, headers: &[String]) -> Result<Group, Problem> {
    let path = target.path.as_deref().unwrap_or("/");
    let bare = path.split('?').next().unwrap_or_default();
    let wrong = |message: String| Problem::of_argument(bare, message);
    let mut call = Call {
        name: format!("GET {bare}"),
        weight: 1,
        kind: CallKind::Http { method: http::Method::GET, body: Template::default() },
        path: path.parse().map_err(|error| wrong(format!("{error}")))?,
        headers: vec![],
        usage: vec![],
        counted: vec![],
        expected: Expected::default(),
    };
    let mut host = None;
    for header in headers {
        let wrong = || Problem::of_argument(header, "is not a header such as 'Host: api.example'");
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), value.trim());
        let template: Template = value.parse().map_err(|_| wrong())?;
        if !template.is_header_value() {
            return Err(wrong());
        }
        if name.eq_ignore_ascii_case("host") {
            let is_host = value.parse::<http::uri::Authority>().is_ok();
            host = Some(value.to_owned()).filter(|_| is_host);
            host.as_ref().ok_or_else(wrong)?;
        } else {
            call.headers.push((name.parse().map_err(|_| wrong())?, template));
        }
    }
    Ok(Group { weight: 1, service: None, proof: None, host, callers: vec![], calls: vec![call] })
}

fn stages(arguments: &Arguments, mix: Option<&MixFile>, problems: &mut Problems) -> Vec<Stage> {
    let when = &arguments.when;
    let stages = rates::stages(when.rate, when.steps.as_ref(), when.each, when.warm_up);
    if !stages.is_empty() {
        return stages;
    }
    let Some(mix) = mix else { return vec![] };
    if mix.stages.is_empty() {
        problems.add("--rate", "is missing: give it, or --steps, or stages in the mix");
    } else if when.warm_up.is_some() {
        problems.add("--warm-up", "goes with --rate or --steps; a stage of a mix has warm_up = true");
    }
    mix.stages.clone()
}

fn protocol(arguments: &Arguments, scheme: Scheme, groups: &[Group]) -> Protocol {
    let is_grpc = |call: &Call| matches!(call.kind, CallKind::Grpc(_));
    if let Some(Api::Threescale) = arguments.how.api {
        Protocol::Authrep { has_body: arguments.how.with_body }
    } else if scheme.is_decisions() {
        Protocol::Decisions
    } else if arguments.how.http2 || groups.iter().flat_map(|group| &group.calls).any(is_grpc) {
        Protocol::Http2
    } else {
        Protocol::Http1
    }
}

fn limits(arguments: &Arguments, protocol: Protocol) -> Limits {
    let how = &arguments.how;
    let connections = match protocol {
        Protocol::Http1 | Protocol::Authrep { .. } => LIMITS.connections,
        Protocol::Http2 => 8,
        Protocol::Decisions => 2,
    };
    let connections = how.connections.map_or(connections, |n| n as usize);
    let threads = usize::from(how.threads);
    Limits {
        connections: connections.max(threads),
        in_flight_max: how.in_flight_max as usize,
        timeout: how.timeout.0,
        threads,
    }
}

/// Files for TLS, as far as they are named.
#[derive(Default)]
struct Pem {
    authorities: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Pem {
    fn read(arguments: &Arguments, problems: &mut Problems) -> Self {
        let how = &arguments.how;
        let mut read = |path: &Option<PathBuf>, option| {
            let read = path.as_deref().map(|path| argument_file::read(path, option));
            problems.one(read.transpose()).flatten()
        };
        Self {
            authorities: read(&how.ca, "--ca"),
            certificate: read(&how.certificate, "--certificate"),
            key: read(&how.key, "--key"),
        }
    }

    fn settings(&self, server_name: Option<&str>) -> Result<TlsSettings, Problem> {
        let options = TlsOptions {
            authorities: self.authorities.as_deref(),
            server_name,
            identity: self.certificate.as_deref().zip(self.key.as_deref()),
        };
        TlsSettings::new(options).map_err(|error| {
            let option = match error {
                TlsError::Authority => "--ca",
                TlsError::Name(_) => "--server-name",
                TlsError::Identity => "--certificate",
            };
            Problem::of_argument(option, error.to_string())
        })
    }
}

fn usage(
    arguments: &Arguments,
    mix: &Mix,
    token: Option<&Secret>,
    pem: &Pem,
    problems: &mut Problems,
) -> Option<(UsageCheck, Listener)> {
    const OPTION: &str = "--check-usage";
    let url = arguments.result.check_usage.as_deref()?;
    let located = problems.one(target::locate(url, arguments.how.i_own_this_host));
    let check = UsageCheck::new(mix).map_err(|why| {
        Problem::of_argument(OPTION, format!("the mix cannot be compared with counters: {why}"))
    });
    let check = problems.one(check);
    if token.is_none() {
        problems.add(OPTION, "needs --token-file: a listener answers nobody without a gateway's token");
    }
    let (located, check, token) = (located?, check?, token?);
    let tls =
        located.scheme.is_tls().then(|| pem.settings(arguments.result.listener_name.as_deref())).transpose();
    let tls = problems.one(tls)?;
    let listener = Listener::new(&located.target, tls.as_ref(), token);
    let listener = listener.map_err(|error| Problem::of_argument(OPTION, error.to_string()));
    Some((check, problems.one(listener)?))
}

/// From the file that is named, else from the variable.
pub(super) fn secret(
    file: &Option<PathBuf>,
    option: &str,
    value: Option<OsString>,
    variable: &str,
) -> Result<Option<Secret>, Problem> {
    let (name, text) = match (file, value) {
        (Some(path), _) => (option, String::from_utf8(argument_file::read(path, option)?).ok()),
        (None, Some(value)) => (variable, value.into_string().ok()),
        (None, None) => return Ok(None),
    };
    argument_file::token(name, &text.unwrap_or_default()).map(Some)
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Short enough to be typed again.
fn any_seed() -> u64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_be_bytes(bytes).into(),
        Err(_) => 1,
    }
}
