//! The form of a report: its bytes, bounded in number and time, and the parameters in them.
//!
//! A form is urlencoded unless it says that it is multipart. A body that is longer than any form may be is read a
//! little further, so that its sender hears why it is refused; beyond that the connection ends.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::parameters::{PARAMETERS_MAX, ParameterError, Parameters, TEXT_BYTES_MAX};
use super::reply::Refusal;

/// Longest wait for a whole body.
const TIMEOUT: Duration = Duration::from_secs(10);
/// So much of a body that is too long is read and thrown away.
const DISCARDED_BYTES_MAX: usize = TEXT_BYTES_MAX;

/// How a form is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Urlencoded,
    /// The parts are between this.
    Multipart(String),
}

impl Kind {
    /// As the headers say; without a word it is urlencoded.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let refusal = || {
            let text = "the Content-Type must be application/x-www-form-urlencoded or multipart/form-data";
            Refusal::bad_request("content_type_invalid", text)
        };
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Urlencoded) };
        let text = value.to_str().map_err(|_| refusal())?.trim();
        let kind = text.split([';', ',']).next().unwrap_or_default().trim();
        if kind.is_empty() || kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Ok(Self::Urlencoded)
        } else if kind.eq_ignore_ascii_case("multipart/form-data") {
            Ok(Self::Multipart(multer::parse_boundary(text).map_err(|_| malformed())?))
        } else {
            Err(refusal())
        }
    }

    /// The parameters in a body.
    ///
    /// # Errors
    /// When it is not written so.
    pub(super) async fn read<'a>(&self, body: &'a Bytes) -> Result<Parameters<'a>, Refusal> {
        match self {
            Self::Urlencoded => Ok(Parameters::parse(body)?),
            Self::Multipart(boundary) => read_parts(body, boundary).await,
        }
    }
}

async fn read_parts<'a>(body: &Bytes, boundary: &str) -> Result<Parameters<'a>, Refusal> {
    let whole = futures_util::stream::iter([Ok::<_, Infallible>(body.clone())]);
    let mut parts = multer::Multipart::new(whole, boundary);
    let mut fields = vec![];
    while let Some(part) = parts.next_field().await.map_err(|_| malformed())? {
        if fields.len() == PARAMETERS_MAX {
            return Err(ParameterError::TooMany.into());
        }
        // A part without a name says nothing.
        let Some(name) = part.name().map(str::to_owned) else { continue };
        fields.push((name, part.bytes().await.map_err(|_| malformed())?.to_vec()));
    }
    Ok(Parameters::of_fields(fields)?)
}

fn malformed() -> Refusal {
    Refusal::bad_request("bad_request", "the body is no form of the kind that its Content-Type names")
}

/// Room for the bodies of all connections together, in kibibytes.
pub(crate) struct Bodies(Semaphore);

/// As many as are held at a time: 64 MiB.
const HELD_KIB_MAX: usize = 64 << 10;

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(HELD_KIB_MAX))
    }
}

impl Bodies {
    /// Waits until there is room for a body.
    async fn room_for(&self, body: &Incoming) -> Option<SemaphorePermit<'_>> {
        let bytes = body.size_hint().upper().unwrap_or(u64::MAX).min(TEXT_BYTES_MAX as u64);
        self.0.acquire_many(u32::try_from(bytes / 1_024).unwrap_or(u32::MAX) + 1).await.ok()
    }
}

/// A body, whole; it keeps its room until it is dropped.
pub(super) struct Collected<'b> {
    pub(super) bytes: Bytes,
    _room: Option<SemaphorePermit<'b>>,
}

/// Reads a body.
///
/// # Errors
/// When it is too long, or does not come in time.
pub(super) async fn collect(bodies: &Bodies, body: Incoming) -> Result<Collected<'_>, Refusal> {
    let refusal = |status, text| Refusal::new(status, "bad_request", text);
    let collecting = async {
        let room = bodies.room_for(&body).await;
        let bytes = collect_bounded(body).await?;
        Ok::<_, hyper::Error>(bytes.map(|bytes| Collected { bytes, _room: room }))
    };
    match tokio::time::timeout(TIMEOUT, collecting).await {
        Ok(Ok(Some(collected))) => Ok(collected),
        Ok(Ok(None)) => Err(ParameterError::TooLong.into()),
        Ok(Err(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// `None`: it is too long.
async fn collect_bounded(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let expected = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let (mut collected, mut length) = (Vec::with_capacity(expected.unwrap_or(0).min(64 << 10)), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > TEXT_BYTES_MAX + DISCARDED_BYTES_MAX {
            break;
        }
        if length <= TEXT_BYTES_MAX {
            collected.extend_from_slice(&data);
        }
    }
    Ok((length <= TEXT_BYTES_MAX).then(|| collected.into()))
}
