//! What is measured, in groups: each starts its servers, measures its cases in turns and ends the servers.
//!
//! A group that cannot start yields its named figures all the same, with the reason in place of values.

use clap::ValueEnum;

use crate::figure::Figure;
use crate::lab::Lab;

mod applications;
mod connections;
mod gateway;
mod http_api;
mod leases;
mod listener;
mod micro;
mod policies;
mod proxied;
mod rules;
mod services;
mod tokens;

/// Some figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// The gateway beside other proxies.
    Gateway,
    /// What leases save, near by and far away.
    Leases,
    /// Decisions, embedded and with Redis.
    Listener,
    /// Decisions by 3scale's HTTP API.
    HttpApi,
    /// The gateway with more and more mapping rules.
    Rules,
    /// The gateway with more and more connections.
    Connections,
    /// The gateway with more and more services.
    Services,
    /// Access tokens beside user keys.
    Tokens,
    /// Policies beside none.
    Policies,
    /// Decisions, memory and restart with more and more applications.
    Applications,
    /// Single steps, each by itself.
    Micro,
}

impl Group {
    /// As the report calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gateway => "A request through the gateway",
            Self::Leases => "Leases",
            Self::Listener => "A decision",
            Self::HttpApi => "A decision by the HTTP API",
            Self::Rules => "Mapping rules",
            Self::Connections => "Client connections, 64 of them busy",
            Self::Services => "Services",
            Self::Tokens => "Access tokens",
            Self::Policies => "Policies",
            Self::Applications => "Applications",
            Self::Micro => "Single steps",
        }
    }

    /// Measures all of it.
    pub(crate) async fn measure(self, lab: &Lab) -> Vec<Figure> {
        let measured = match self {
            Self::Gateway => gateway::measure(lab).await,
            Self::Leases => leases::measure(lab).await,
            Self::Listener => listener::measure(lab).await,
            Self::HttpApi => http_api::measure(lab).await,
            Self::Rules => rules::measure(lab).await,
            Self::Connections => connections::measure(lab).await,
            Self::Services => services::measure(lab).await,
            Self::Tokens => tokens::measure(lab).await,
            Self::Policies => policies::measure(lab).await,
            Self::Applications => applications::measure(lab).await,
            Self::Micro => micro::measure(),
        };
        measured.unwrap_or_else(|error| {
            eprintln!("  failed: {error:#}");
            let failed = |name: &&str| Figure::new(*name, *name, "", Err(anyhow::anyhow!("{error:#}")));
            self.promised().iter().map(failed).collect()
        })
    }

    /// Figures that results have whatever happens: those with a target, or one that stands for all.
    fn promised(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &[
                "gateway_cpu_vs_nginx",
                "lease_gateway_cpu_vs_nginx",
                "gateway_and_listener_cpu_vs_nginx_auth_request",
            ],
            Self::Leases => &[
                "lease_store_calls_per_request",
                "lease_wan_throughput_ratio",
                "lease_wan_p99_added_ms",
                "over_admitted",
                "lost_or_doubled",
            ],
            Self::Listener => &[
                "authrep_redis_cpu_us",
                "authrep_redis_hot_cpu_us",
                "authrep_embedded_stream_cpu_us",
                "authrep_embedded_unary_cpu_us",
            ],
            Self::HttpApi => &[
                "http_authrep_embedded_cpu_us",
                "http_authrep_embedded_xml_cpu_us",
                "http_authrep_redis_cpu_us",
                "http_authrep_redis_xml_cpu_us",
            ],
            Self::Rules => &["rules_10000_vs_10"],
            Self::Applications => {
                &["applications_1m_vs_1k", "application_cached_bytes", "restart_to_ready_1m_s"]
            }
            Self::Tokens => &["token_added_us", "forged_token_added_us", "forged_tokens_memory_kib"],
            Self::Policies => &["five_policies_added_us"],
            Self::Connections => &["connections_64_cpu_us"],
            Self::Services => &["services_1_cpu_us"],
            Self::Micro => &["lease_decision_ns"],
        }
    }
}
