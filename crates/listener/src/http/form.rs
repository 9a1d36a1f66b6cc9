//! The form of a report: its bytes, bounded in number and time, and the parameters in them.
//!
//! A form is urlencoded unless it says that it is multipart. A body that is longer than any form may be is read a
//! little further, so that its sender hears why it is refused; beyond that the connection ends.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
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
            Self::Urlencoded => Ok(Parameters::of_form(body)?),
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

/// Room for what has come of the bodies of all connections, in kibibytes.
pub(crate) struct Bodies(Semaphore);

/// As much is held at a time: 64 MiB.
const HELD_KIB_MAX: usize = 64 << 10;
/// Room is taken in pieces of so much.
const PIECE_KIB: u32 = 64;

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(HELD_KIB_MAX))
    }
}

/// A body, whole; it keeps its room until it is dropped.
pub(super) struct Collected<'b> {
    pub(super) bytes: Bytes,
    _room: Option<SemaphorePermit<'b>>,
}

/// Why there is no body.
pub(super) enum BodyError {
    /// What is told of it.
    Refused(Refusal),
    /// Too many others are being read.
    Busy,
}

impl From<hyper::Error> for BodyError {
    fn from(_: hyper::Error) -> Self {
        Self::Refused(Refusal::bad_request("bad_request", "the body broke off"))
    }
}

/// Reads a body.
///
/// # Errors
/// When it is too long, or does not come in time, or there is no room for it.
pub(super) async fn collect(bodies: &Bodies, body: Incoming) -> Result<Collected<'_>, BodyError> {
    tokio::time::timeout(TIMEOUT, collect_bounded(bodies, body)).await.unwrap_or_else(|_| {
        let text = "the body did not come in time";
        Err(BodyError::Refused(Refusal::new(StatusCode::REQUEST_TIMEOUT, "bad_request", text)))
    })
}

/// Room is taken as bytes come, and never waited for: who only says that much will come is in nobody's way.
async fn collect_bounded(bodies: &Bodies, mut body: Incoming) -> Result<Collected<'_>, BodyError> {
    let (mut collected, mut length, mut room_bytes) = (Vec::new(), 0, 0);
    let mut room: Option<SemaphorePermit<'_>> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > TEXT_BYTES_MAX + DISCARDED_BYTES_MAX {
            break;
        }
        while room_bytes < length.min(TEXT_BYTES_MAX) {
            let piece = bodies.0.try_acquire_many(PIECE_KIB).map_err(|_| BodyError::Busy)?;
            room_bytes += PIECE_KIB as usize * 1_024;
            match &mut room {
                Some(room) => room.merge(piece),
                None => room = Some(piece),
            }
        }
        if length <= TEXT_BYTES_MAX {
            collected.extend_from_slice(&data);
        }
    }
    if length > TEXT_BYTES_MAX {
        return Err(BodyError::Refused(ParameterError::TooLong.into()));
    }
    Ok(Collected { bytes: collected.into(), _room: room })
}
