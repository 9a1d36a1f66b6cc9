//! Which service a request belongs to.
//!
//! Built from all services at once and swapped whole, so that every request sees one configuration. An exact
//! host beats a wildcard, a longer wildcard a shorter one. Services come in the order of their ids (numbers by
//! their value), whatever order they were told in, so that all gateways agree on who is first at a shared host.

use std::cmp::Ordering;
use std::sync::Arc;

use hashbrown::HashMap;
use tracing::warn;

use crate::arguments::Arguments;
use crate::config::Routing;
use crate::service::Service;

/// The services of one configuration, by host.
#[derive(Default)]
pub(crate) struct Routes {
    routing: Routing,
    exact: HashMap<String, Vec<Arc<Service>>>,
    /// By what follows the star: `.example.org`.
    wildcards: HashMap<String, Vec<Arc<Service>>>,
}

impl Routes {
    /// Orders services by host.
    pub(crate) fn new(routing: Routing, mut services: Vec<Arc<Service>>) -> Self {
        services.sort_by(|a, b| by_id(a.id.as_str(), b.id.as_str()));
        let mut routes = Self { routing, ..Self::default() };
        for service in &services {
            for host in &service.proxy.hosts {
                let claimed = match host.strip_prefix('*') {
                    Some(suffix) => routes.wildcards.entry_ref(suffix).or_default(),
                    None => routes.exact.entry_ref(host.as_str()).or_default(),
                };
                if let (Routing::Host, Some(first)) = (routing, claimed.first()) {
                    let (service, first) = (service.id.as_str(), first.id.as_str());
                    warn!(service.id = service, host, first, "another service has this host already");
                }
                claimed.push(Arc::clone(service));
            }
        }
        routes
    }

    /// The service of a request, of those at its host; `path` is decoded.
    pub(crate) fn find<'a>(
        &self,
        candidates: &'a [Arc<Service>],
        method: &str,
        path: &[u8],
        query: &str,
    ) -> Option<&'a Arc<Service>> {
        if self.routing == Routing::Host {
            return candidates.first();
        }
        let arguments = Arguments { query, form: b"" };
        let matching = candidates.iter().find(|service| {
            !service.rules.matches(method, path, &|name| arguments.last(name)).rules.is_empty()
        });
        match self.routing {
            Routing::PathOnly => matching,
            Routing::Host | Routing::Path => matching.or(candidates.first()),
        }
    }

    /// The services at a host, if there are any.
    pub(crate) fn at_host(&self, host: &str) -> Option<&[Arc<Service>]> {
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

    /// Services as `"id host,host /pattern,/pattern"`.
    #[track_caller]
    fn check(routing: Routing, services: &[&str], host: &str, target: &str, expected: Option<&str>) {
        let services = services.iter().map(|text| {
            let parts: Vec<Vec<&str>> = text.split(' ').map(|part| part.split(',').collect()).collect();
            Arc::new(Service::for_tests(parts[0][0], &parts[1], &parts[2]))
        });
        let routes = Routes::new(routing, services.collect());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let found = routes.at_host(host).and_then(|at| routes.find(at, "GET", path.as_bytes(), query));
        assert_eq!(found.map(|service| service.id.as_str()), expected, "{host}{target}");
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
