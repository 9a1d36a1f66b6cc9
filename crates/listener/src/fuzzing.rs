//! What fuzz targets (`fuzz/`) see of the inside of this crate. Normal builds do not have it.
//!
//! Each function is as thin as can be: bytes go in, what was read comes out. What is right is said in the targets.

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use weir_core::Timestamp;

use crate::http::{parameters, report, timestamp};

/// What parameters come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Texts and bare names.
    pub values: usize,
    /// Names around the innermost of them.
    pub depth: usize,
    /// Of all names and texts together.
    pub bytes: usize,
}

/// What a text of parameters comes to; `None`: it is none, or no UTF-8.
pub fn parameters(text: &[u8]) -> Option<Shape> {
    let parameters = parameters::Parameters::of_form(text).ok().filter(parameters::Parameters::is_utf8)?;
    let mut shape = Shape { values: 0, depth: 0, bytes: 0 };
    for name in parameters.names() {
        shape.bytes += name.len();
        if let Some(value) = parameters.get(name) {
            measure(value, 1, &mut shape);
        }
    }
    Some(shape)
}

fn measure(value: &parameters::Value<'_>, depth: usize, shape: &mut Shape) {
    shape.depth = shape.depth.max(depth);
    match value {
        parameters::Value::Absent => shape.values += 1,
        parameters::Value::Text(text) => {
            shape.values += 1;
            shape.bytes += text.len();
        }
        parameters::Value::List(items) => items.iter().for_each(|item| measure(item, depth + 1, shape)),
        parameters::Value::Map(map) => {
            for (name, value) in map {
                shape.bytes += name.len();
                measure(value, depth + 1, shape);
            }
        }
    }
}

/// How many transactions a report has, and how many metrics they use; or the status that refuses it.
pub fn report(options: &[u8], content_type: &[u8], body: &[u8]) -> Result<(usize, usize), u16> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("3scale-options", options), (header::CONTENT_TYPE.as_str(), content_type)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let body = Bytes::copy_from_slice(body);
    let read = report::read_transactions(&headers, &body).now_or_never();
    let transactions =
        read.expect("nothing has to be waited for").map_err(|refusal| refusal.status.as_u16())?;
    let metrics = transactions.iter().map(|transaction| transaction.usage.iter().count());
    Ok((transactions.len(), metrics.sum()))
}

/// The instant of a transaction's timestamp, in seconds.
pub fn timestamp(text: &str) -> Option<i64> {
    timestamp::parse(text).map(Timestamp::unix_s)
}
