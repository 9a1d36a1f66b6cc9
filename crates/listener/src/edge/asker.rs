//! Which proxy asks about a call, and what it stands in front of.
//!
//! The protocols make one of each question. A host is the client's word: an API's proxy that goes by it alone would send
//! another API's callers, and that API's secret token, to its own upstream. So a proxy says which service it stands in
//! front of, and the call is of that service or of none. What it says can only take away from what its token opens.

use weir_core::ServiceId;

use crate::config::GatewayToken;

/// Which protocol asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Envoy,
    Nginx,
}

impl Kind {
    /// As metrics say it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
        }
    }
}

/// A proxy that asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) kind: Kind,
    pub(crate) gateway: &'a GatewayToken,
    /// The id of the one service that it stands in front of; `None`: whichever its token opens.
    pub(crate) service: Option<&'a str>,
    /// The environment that it was configured for; `None`: its token's.
    pub(crate) environment: Option<&'a str>,
}

impl Asker<'_> {
    /// Whether it stands in front of a service.
    pub(crate) fn is_for(&self, service: &ServiceId) -> bool {
        self.service.is_none_or(|bound| bound == service.as_str())
    }

    /// Whether it is configured for its token's environment. Else its operator has made a mistake, and finds it in the
    /// log.
    pub(crate) fn is_of_its_tokens_environment(&self) -> bool {
        let is_same = self.environment.is_none_or(|name| name == self.gateway.environment.as_str());
        if !is_same {
            let (gateway, token) = (&self.gateway.id, self.gateway.environment.as_str());
            tracing::warn!(
                gateway.id = %gateway,
                gateway.environment = token,
                "{} of another environment than its token {gateway} asked, and was refused",
                self.kind.as_str(),
            );
        }
        is_same
    }
}
