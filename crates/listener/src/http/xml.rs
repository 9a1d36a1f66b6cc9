//! Documents of 3scale's API: the status of an application, and errors.
//!
//! Reference: Service Management API, section 1.7. Elements stand in a fixed order without blanks in between, and
//! every text is escaped.

use std::fmt::Write;

use time::OffsetDateTime;
use weir_core::credentials::{OauthCall, Redirect};
use weir_core::metric::MetricTree;
use weir_core::{Application, Denial, LimitStatus, MetricIndex, Period, Timestamp};

const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
/// Room for a usual document.
const BYTES_USUAL: usize = 1_024;

/// What a status document tells.
pub(super) struct Status<'a> {
    /// Why the call is refused.
    pub(super) denial: Option<&'a Denial>,
    pub(super) application: &'a Application,
    /// The call, where the endpoint is one of OAuth's.
    pub(super) oauth: Option<&'a OauthCall>,
    pub(super) plan: &'a str,
    /// All limits of the plan.
    pub(super) limits: &'a [LimitStatus],
    pub(super) metrics: &'a MetricTree,
    pub(super) lists_app_keys: bool,
    pub(super) tells_hierarchy: bool,
}

/// An error document.
pub(super) fn error(code: &str, text: &str) -> String {
    let mut xml = String::from(DECLARATION);
    put(&mut xml, format_args!(r#"<error code="{}">{}</error>"#, Escaped(code), Escaped(text)));
    xml
}

impl Status<'_> {
    /// The document.
    pub(super) fn document(&self) -> String {
        let mut xml = String::with_capacity(BYTES_USUAL);
        xml.push_str(DECLARATION);
        xml.push_str("<status>");
        put(&mut xml, format_args!("<authorized>{}</authorized>", self.denial.is_none()));
        if let Some(denial) = self.denial {
            put(&mut xml, format_args!("<reason>{}</reason>", Escaped(&denial.sentence())));
        }
        if let Some(call) = self.oauth {
            self.put_application(&mut xml, call);
        }
        put(&mut xml, format_args!("<plan>{}</plan>", Escaped(self.plan)));
        let limits = self.limits_in_order();
        if !limits.is_empty() {
            xml.push_str("<usage_reports>");
            limits.iter().for_each(|limit| put_report(&mut xml, limit));
            xml.push_str("</usage_reports>");
        }
        let reference = &self.application.reference;
        if self.lists_app_keys {
            // They are kept as hashes, so there is nothing to list.
            let (app, svc) = (Escaped(reference.application.as_str()), Escaped(reference.service.as_str()));
            put(&mut xml, format_args!(r#"<app_keys app="{app}" svc="{svc}"></app_keys>"#));
        }
        if self.tells_hierarchy {
            self.put_hierarchy(&mut xml, &limits);
        }
        xml.push_str("</status>");
        xml
    }

    /// By metric, long periods first.
    fn limits_in_order(&self) -> Vec<&LimitStatus> {
        let mut limits: Vec<&LimitStatus> = self.limits.iter().collect();
        let place = |limit: &LimitStatus| self.metrics.find(limit.metric.as_str()).map(MetricIndex::as_usize);
        limits.sort_by_cached_key(|limit| (place(limit), Period::ALL.len() - limit.window.period.index()));
        limits
    }

    fn put_application(&self, xml: &mut String, call: &OauthCall) {
        let id = Escaped(self.application.reference.application.as_str());
        let url = Escaped(self.application.redirect_url.as_deref().unwrap_or_default());
        let element = match call.redirect {
            Some(Redirect::Uri(_)) => "redirect_uri",
            Some(Redirect::Url(_)) | None => "redirect_url",
        };
        let redirect = format_args!("<{element}>{url}</{element}>").to_string();
        put(xml, format_args!("<application><id>{id}</id><key></key>{redirect}</application>"));
    }

    /// The names of each metric's direct children.
    fn children(&self) -> Vec<String> {
        let mut children = vec![String::new(); self.metrics.len()];
        for (_, child) in self.metrics.iter() {
            let Some(parent) = child.parent else { continue };
            let names = &mut children[parent.as_usize()];
            let blank = if names.is_empty() { "" } else { " " };
            put(names, format_args!("{blank}{}", Escaped(child.name.as_str())));
        }
        children
    }

    fn put_hierarchy(&self, xml: &mut String, limits: &[&LimitStatus]) {
        let children = self.children();
        xml.push_str("<hierarchy>");
        for limit in limits {
            let place = self.metrics.find(limit.metric.as_str()).map(MetricIndex::as_usize);
            let children = place.map_or("", |place| children[place].as_str());
            let name = Escaped(limit.metric.as_str());
            put(xml, format_args!(r#"<metric name="{name}" children="{children}"/>"#));
        }
        xml.push_str("</hierarchy>");
    }
}

fn put_report(xml: &mut String, limit: &LimitStatus) {
    let exceeded = if limit.used > limit.max { r#" exceeded="true""# } else { "" };
    let (metric, period) = (Escaped(limit.metric.as_str()), limit.window.period);
    put(xml, format_args!(r#"<usage_report metric="{metric}" period="{period}"{exceeded}>"#));
    if let (Some(end), true) = (limit.window.end, period != Period::Eternity) {
        let (start, end) = (Calendar(limit.window.start), Calendar(end));
        put(xml, format_args!("<period_start>{start}</period_start><period_end>{end}</period_end>"));
    }
    let (max, current) = (limit.max, limit.used);
    put(
        xml,
        format_args!("<max_value>{max}</max_value><current_value>{current}</current_value></usage_report>"),
    );
}

fn put(xml: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = xml.write_fmt(text);
}

/// An instant as `2031-05-04 00:00:00 +0000`.
struct Calendar(Timestamp);

impl std::fmt::Display for Calendar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp(self.0.unix_s()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = (at.hour(), at.minute(), at.second());
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// A text as it may stand in an element or an attribute. What XML has no place for becomes a question mark.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut plain = self.0;
        while let Some(at) = plain.find(needs_escape) {
            f.write_str(&plain[..at])?;
            let c = plain[at..].chars().next().unwrap_or_default();
            f.write_str(match c {
                '<' => "&lt;",
                '>' => "&gt;",
                '&' => "&amp;",
                '"' => "&quot;",
                _ => "?",
            })?;
            plain = &plain[at + c.len_utf8()..];
        }
        f.write_str(plain)
    }
}

fn needs_escape(c: char) -> bool {
    let has_no_place = (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    matches!(c, '<' | '>' | '&' | '"') || has_no_place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(Escaped(r#"a<b>&"c" é"#).to_string(), "a&lt;b&gt;&amp;&quot;c&quot; é");
        assert_eq!(Escaped("a\0b\u{1b}\n\u{FFFF}").to_string(), "a?b?\n?");
        assert_eq!(
            error("metric_invalid", "no <b>"),
            r#"<?xml version="1.0" encoding="UTF-8"?><error code="metric_invalid">no &lt;b&gt;</error>"#
        );
    }

    #[test]
    fn instants_are_written_as_the_field_does() {
        assert_eq!(Calendar(Timestamp::from_unix_s(1_935_878_400)).to_string(), "2031-05-07 00:00:00 +0000");
    }
}
