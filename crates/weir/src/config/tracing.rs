//! `[tracing]`: where spans of OpenTelemetry are sent.
//!
//! The keys are the same in every build; a build that cannot trace says so instead of leaving the table aside.

use http::Uri;

use crate::report::Place;
use crate::section::Section;

/// Whether this binary can trace.
const IS_BUILT_IN: bool = cfg!(feature = "otel");

/// The share of calls that a gateway traces by itself.
const SAMPLE_RATIO: f64 = 0.01;

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TracingConfig {
    /// `http://host:port` of an OTLP collector, by gRPC.
    pub(crate) endpoint: String,
    /// The share of calls that are traced, of those whose client does not say.
    pub(crate) sample_ratio: f64,
}

/// Reads a gateway's table.
pub(super) fn of_gateway(section: &Section<'_>) -> Option<TracingConfig> {
    read(section, IS_BUILT_IN, |section| section.ratio("sample_ratio"))
}

/// Reads a listener's table: which calls are traced is the gateways' choice.
pub(super) fn of_listener(section: &Section<'_>) -> Option<TracingConfig> {
    read(section, IS_BUILT_IN, |_| None)
}

/// Reads the table for a binary that can trace, or not.
pub(super) fn read(
    section: &Section<'_>,
    is_built_in: bool,
    sample_ratio: impl FnOnce(&Section<'_>) -> Option<f64>,
) -> Option<TracingConfig> {
    section.inside("tracing", |section| {
        let endpoint = section.text("endpoint");
        let sample_ratio = sample_ratio(section);
        let place = match &endpoint {
            Some(endpoint) if !section.is_given() => endpoint.place,
            None if !section.is_given() && sample_ratio.is_none() => return None,
            _ => section.place(),
        };
        if !is_built_in {
            say_not_built_in(section, place);
            return None;
        }
        section.require("endpoint");
        let endpoint = endpoint?;
        if !is_endpoint(endpoint.value) {
            let message = format!("endpoint {:?} is not of the form http://host:port", endpoint.value);
            section.report().error(endpoint.place, message);
        }
        let sample_ratio = sample_ratio.unwrap_or(SAMPLE_RATIO);
        Some(TracingConfig { endpoint: endpoint.value.to_owned(), sample_ratio })
    })
}

fn say_not_built_in(section: &Section<'_>, place: Place) {
    let message = "tracing: this weir was built without OpenTelemetry; \
                   one with it is built by: cargo build --release -p weir --features otel";
    section.report().error(place, message);
}

/// Without TLS: spans go to a collector nearby, which knows the way on.
fn is_endpoint(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}
