//! `upstream_tls`: what the gateway shows to upstreams, and which authorities it trusts there.
//!
//! Keys and certificates are files of the gateways; a catalog has their name only.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};

/// Which of the gateway's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// As `[[upstream_tls]]` of gateway.toml names it.
    pub identity: String,
}

impl UpstreamTls {
    pub(super) const KIND: Kind = Kind {
        name: "upstream_tls",
        meaning: "Shows upstreams a client certificate, and trusts authorities of its own.",
        place: Place::Either,
        repeats: Repeats::Never,
        has_conditions: false,
        read: |form| Policy::UpstreamTls(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let identity = form.text("identity", "The name of an `[[upstream_tls]]` of gateway.toml.", "text");
        form.require(&["identity"]);
        Self { identity: identity.unwrap_or_default().to_owned() }
    }
}
