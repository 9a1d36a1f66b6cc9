//! Decided descriptors in Envoy's words.
//!
//! Each status shows one limit: the one that refuses, else the one with the least left. Envoy has no unit for all time,
//! and no number above 32 bits: the first is told as UNKNOWN, the second as the largest there is.

use weir_core::proxy::Refusals;
use weir_core::ratelimit::Tightest;
use weir_core::refusal::{Refused, retry_after_s};
use weir_core::{LimitStatus, Period, Timestamp};
use weir_proto::envoy::config::core::v3::HeaderValue;
use weir_proto::envoy::service::ratelimit::v3::RateLimitResponse;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};

use super::Decided;
use crate::edge::reply::limit_headers;

/// The answer about all descriptors; `texts` are the provider's.
pub(super) fn answer(decided: &[Decided], texts: &Refusals) -> RateLimitResponse {
    let over = decided.iter().find(|one| one.is_over);
    let refused = over.and_then(|one| one.limits.first()).map(|limit| Refused::by_limit(limit, texts));
    RateLimitResponse {
        overall_code: code(over.is_some()).into(),
        statuses: decided.iter().map(status).collect(),
        response_headers_to_add: headers(decided, over, refused),
        raw_body: refused.map(|refused| refused.reply.body.clone().into_bytes()).unwrap_or_default(),
    }
}

fn code(is_over: bool) -> Code {
    if is_over { Code::OverLimit } else { Code::Ok }
}

fn status(decided: &Decided) -> DescriptorStatus {
    let shown = decided.limits.iter().min_by_key(|limit| limit.remaining());
    DescriptorStatus {
        code: code(decided.is_over).into(),
        current_limit: shown.map(current_limit),
        limit_remaining: shown.map_or(0, |limit| narrow(limit.remaining())),
        duration_until_reset: shown.and_then(|limit| until_reset(limit, decided.at)),
    }
}

fn current_limit(limit: &LimitStatus) -> RateLimit {
    let unit = match limit.window.period {
        Period::Minute => Unit::Minute,
        Period::Hour => Unit::Hour,
        Period::Day => Unit::Day,
        Period::Week => Unit::Week,
        Period::Month => Unit::Month,
        Period::Year => Unit::Year,
        Period::Eternity => Unit::Unknown,
    };
    RateLimit {
        requests_per_unit: narrow(limit.max),
        unit: unit.into(),
        name: format!("{}-{}", limit.metric, limit.window.period),
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn until_reset(limit: &LimitStatus, at: Timestamp) -> Option<prost_types::Duration> {
    let seconds = limit.window.seconds_left(at)?;
    Some(prost_types::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
}

/// Where limits stand; of a refusal only its own limit, and when to come back.
fn headers(decided: &[Decided], over: Option<&Decided>, refused: Option<Refused<'_>>) -> Vec<HeaderValue> {
    let header = |key: &str, value: String| HeaderValue { key: key.to_owned(), value, raw_value: vec![] };
    let shown = over.map_or(decided, std::slice::from_ref);
    let Some(at) = shown.first().map(|one| one.at) else { return vec![] };
    let limits = Tightest::of(shown.iter().flat_map(|one| &one.limits).cloned());
    let mut headers: Vec<_> = limit_headers(&limits, at).map(|(name, value)| header(name, value)).collect();
    // What is no value is never written.
    let is_value = |text: &&str| http::HeaderValue::from_str(text).is_ok();
    let content_type = refused.map(|refused| refused.reply.content_type.as_str()).filter(is_value);
    headers.extend(content_type.map(|text| header("content-type", text.to_owned())));
    let reached = refused.and_then(|refused| refused.limit);
    if let Some(seconds) = reached.and_then(|limit| retry_after_s(limit, at)) {
        headers.push(header("retry-after", seconds.to_string()));
    }
    headers
}
