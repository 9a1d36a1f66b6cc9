//! `routing`: sends calls elsewhere by path, method, header, query argument or claim.

use super::condition::{Condition, Subject};
use super::form::Form;
use super::upstream_url::UpstreamUrl;
use super::{Kind, Place, Policy, Repeats};

/// Most routes.
const ROUTES_MAX: usize = 100;

/// Where calls go.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The first whose condition holds.
    pub routes: Vec<Route>,
}

/// One way.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which calls take it.
    pub when: Condition,
    /// Where they go, as `api_backend` of a proxy.
    pub api_backend: String,
    /// The Host that is seen there; `None`: its own.
    pub host_rewrite: Option<String>,
}

impl Routing {
    pub(super) const KIND: Kind = Kind {
        name: "routing",
        meaning: "Sends calls elsewhere than to the API's own backend, by path, header, query argument or claim.",
        place: Place::Behind,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::Routing(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let routes = form.tables(
            "routes",
            "Ways, of which a call takes the first that is for it; if none is, it goes where it would go without.",
            ROUTES_MAX,
            |form| {
                let when = form.table("when", "Which calls take it.", Condition::read);
                let url = form.parsed::<UpstreamUrl>("api_backend", "Where they go.", "URL");
                let host = form.text("host_rewrite", "The Host that is seen there; without, its own.", "host");
                form.require(&["when", "api_backend"]);
                Route {
                    when: when.unwrap_or_default(),
                    api_backend: url.map(|url| url.0).unwrap_or_default(),
                    host_rewrite: host.map(str::to_owned),
                }
            },
        );
        form.require(&["routes"]);
        Self { routes }
    }

    /// Which route a call takes, as a place in the list.
    pub fn route(&self, subject: &Subject<'_>) -> Option<usize> {
        self.routes.iter().position(|route| route.when.holds(subject))
    }
}
