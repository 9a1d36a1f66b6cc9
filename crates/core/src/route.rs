//! Which service a request belongs to.
//!
//! Built from all services at once and swapped whole, so that every request sees one configuration. An exact
//! host beats a wildcard, a longer wildcard a shorter one. Services come in the order of their ids (numbers by
//! their value), whatever order they were told in, so that all gateways agree on who is first at a shared host.

use std::cmp::Ordering;

use hashbrown::HashMap;

use crate::id::ServiceId;

/// How a request finds its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Routing {
    /// By host alone.
    #[default]
    Host,
    /// Services may share a host: the first with a matching mapping rule, else the first of the host.
    Path,
    /// As `Path`, but without a matching rule nothing is found (404).
    PathOnly,
}

/// The services of one configuration, by host; `S` is a service as its role keeps it.
pub struct Routes<S> {
    routing: Routing,
    exact: HashMap<String, Vec<S>>,
    /// By what follows the star: `.example.org`.
    wildcards: HashMap<String, Vec<S>>,
}

impl<S> Default for Routes<S> {
    fn default() -> Self {
        Self { routing: Routing::default(), exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<S: Clone> Routes<S> {
    /// Orders services by host; `about` says which id and hosts one has. The hosts are bare, see
    /// [`crate::target::bare_host`].
    pub fn new(
        routing: Routing,
        mut services: Vec<S>,
        about: impl Fn(&S) -> (&ServiceId, &[String]),
    ) -> Self {
        services.sort_by(|a, b| by_id(about(a).0.as_str(), about(b).0.as_str()));
        let mut routes = Self { routing, ..Self::default() };
        for service in &services {
            for host in about(service).1 {
                let claimed = match host.strip_prefix('*') {
                    Some(suffix) => routes.wildcards.entry_ref(suffix).or_default(),
                    None => routes.exact.entry_ref(host.as_str()).or_default(),
                };
                claimed.push(service.clone());
            }
        }
        routes
    }
}

impl<S> Routes<S> {
    /// Groups of services that claim the same host where only the first is ever found.
    pub fn contested(&self) -> impl Iterator<Item = &[S]> {
        let claims = self.exact.values().chain(self.wildcards.values()).map(Vec::as_slice);
        claims.filter(|services| self.routing == Routing::Host && services.len() > 1)
    }

    /// The service of a request, of those at its host; `matches` says whether a service has a rule for it.
    pub fn find<'a>(&self, candidates: &'a [S], matches: impl Fn(&S) -> bool) -> Option<&'a S> {
        if self.routing == Routing::Host {
            return candidates.first();
        }
        let matching = candidates.iter().find(|service| matches(service));
        match self.routing {
            Routing::PathOnly => matching,
            Routing::Host | Routing::Path => matching.or(candidates.first()),
        }
    }

    /// The services at a host, if there are any.
    pub fn at_host(&self, host: &str) -> Option<&[S]> {
        if let Some(services) = self.exact.get(host) {
            return Some(services);
        }
        let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        dots.filter_map(|at| self.wildcards.get(&host[at..])).map(Vec::as_slice).next()
    }
}

fn by_id(one: &str, other: &str) -> Ordering {
    let number = |id: &str| id.parse::<u64>().unwrap_or(u64::MAX);
    number(one).cmp(&number(other)).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id, its hosts, and the targets that its rules match.
    type Tried = (ServiceId, Vec<String>, Vec<String>);

    /// Services as `"id host,host /target,/target"`.
    fn routes(routing: Routing, services: &[&str]) -> Routes<Tried> {
        let services = services.iter().map(|text| {
            let parts: Vec<Vec<String>> =
                text.split(' ').map(|part| part.split(',').map(str::to_owned).collect()).collect();
            (ServiceId::parse(&parts[0][0]).unwrap(), parts[1].clone(), parts[2].clone())
        });
        Routes::new(routing, services.collect(), |(id, hosts, _)| (id, hosts))
    }

    #[track_caller]
    fn check(routing: Routing, services: &[&str], host: &str, target: &str, expected: Option<&str>) {
        let routes = routes(routing, services);
        let matches = |(_, _, targets): &Tried| targets.iter().any(|known| target.starts_with(known));
        let found = routes.at_host(host).and_then(|at| routes.find(at, matches));
        assert_eq!(found.map(|(id, ..)| id.as_str()), expected, "{host}{target}");
    }

    #[test]
    fn contested_hosts_are_told() {
        let services = ["b x.test /b", "a x.test,a.test /a"];
        let contested = |routing| {
            let ids = |services: &[Tried]| services.iter().map(|(id, ..)| id.to_string()).collect::<Vec<_>>();
            routes(routing, &services).contested().map(ids).collect::<Vec<_>>()
        };
        assert_eq!(contested(Routing::Host), [["a", "b"]]);
        assert!(contested(Routing::Path).is_empty());
    }

    #[test]
    fn by_host() {
        let services = ["a a.test /", "b b.test,b2.test /"];
        check(Routing::Host, &services, "a.test", "/", Some("a"));
        check(Routing::Host, &services, "b2.test", "/", Some("b"));
        check(Routing::Host, &services, "c.test", "/", None);
        check(Routing::Host, &["b x.test /b", "a x.test /a"], "x.test", "/b", Some("a"));
        check(Routing::Host, &["10 x.test /", "9 x.test /"], "x.test", "/", Some("9"));
    }

    #[test]
    fn by_wildcard() {
        let services = ["w *.api.test /", "v *.eu.api.test /", "x one.api.test /"];
        check(Routing::Host, &services, "two.api.test", "/", Some("w"));
        check(Routing::Host, &services, "a.b.api.test", "/", Some("w"));
        check(Routing::Host, &services, "a.eu.api.test", "/", Some("v"));
        check(Routing::Host, &services, "one.api.test", "/", Some("x"));
        check(Routing::Host, &services, "api.test", "/", None);
        check(Routing::Host, &services, ".api.test", "/", None);
    }

    #[test]
    fn by_path() {
        let services = ["a x.test /a", "b x.test /b,/q?v=2"];
        check(Routing::Path, &services, "x.test", "/b/x", Some("b"));
        check(Routing::Path, &services, "x.test", "/q?v=2", Some("b"));
        check(Routing::Path, &services, "x.test", "/q?v=1", Some("a"));
        check(Routing::Path, &services, "y.test", "/a", None);
        check(Routing::PathOnly, &services, "x.test", "/b", Some("b"));
        check(Routing::PathOnly, &services, "x.test", "/c", None);
    }
}
