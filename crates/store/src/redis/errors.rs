//! The error lists of services in Redis: `weir:{7}:errors:<service>`, newest first, in the service's shard.
//!
//! Each entry is MessagePack: moment in ms, code, message, request. A list ends with the time that nothing was added for.

use redis::Value;
use rmp::decode::{read_array_len, read_int};
use rmp::encode::{ValueWriteError, write_array_len, write_sint, write_str};
use weir_core::{ServiceId, Timestamp};

use super::lease::read_text;
use super::{Redis, shard_of_text};
use crate::service_error::{ERRORS_KEPT_MAX, ERRORS_KEPT_MS, places};
use crate::{ErrorPage, ServiceError, StoreError};

/// Values of an error.
const VALUES: u32 = 4;

fn key(service: &ServiceId) -> String {
    format!("weir:{{{}}}:errors:{service}", shard_of_text(service.as_str()))
}

fn write(error: &ServiceError) -> Result<Vec<u8>, ValueWriteError> {
    let mut out = Vec::with_capacity(256);
    write_array_len(&mut out, VALUES)?;
    write_sint(&mut out, error.at.unix_ms())?;
    for text in [&error.code, &error.message, &error.request] {
        write_str(&mut out, text)?;
    }
    Ok(out)
}

fn read(mut bytes: &[u8]) -> Option<ServiceError> {
    let from = &mut bytes;
    if read_array_len(from).ok()? != VALUES {
        return None;
    }
    let at = Timestamp::from_unix_ms(read_int(from).ok()?);
    let mut text = || String::from_utf8(read_text(from)?.to_vec()).ok();
    Some(ServiceError { at, code: text()?, message: text()?, request: text()? })
}

impl Redis {
    pub(crate) async fn keep_error(
        &self,
        service: &ServiceId,
        error: &ServiceError,
    ) -> Result<(), StoreError> {
        let (key, error) = (key(service), write(&error.clipped()).expect("memory takes all bytes"));
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("LPUSH").arg(&key).arg(error).ignore();
        pipe.cmd("LTRIM").arg(&key).arg(0).arg(ERRORS_KEPT_MAX - 1).ignore();
        pipe.cmd("PEXPIRE").arg(&key).arg(ERRORS_KEPT_MS).ignore();
        Ok(pipe.query_async::<()>(&mut self.reader()).await?)
    }

    pub(crate) async fn errors(
        &self,
        service: &ServiceId,
        page: usize,
        per_page: usize,
    ) -> Result<ErrorPage, StoreError> {
        let (first, end) = places(page, per_page);
        let key = key(service);
        // One transaction, so that total and page belong together.
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("LLEN").arg(&key).cmd("LRANGE").arg(&key).arg(first);
        // Its end is the last place; before the first: nothing.
        pipe.arg(i64::try_from(end).unwrap_or(i64::MAX) - 1);
        let (total, found): (u64, Vec<Value>) = pipe.query_async(&mut self.connection().await?).await?;
        // A page without places, of which Redis would read the end as one counted from the back.
        let found = if first == end { vec![] } else { found };
        let broken = || StoreError::Answer("an error list of unknown shape".into());
        let error = |value: &Value| match value {
            Value::BulkString(bytes) => read(bytes).ok_or_else(broken),
            _ => Err(broken()),
        };
        Ok(ErrorPage { errors: found.iter().map(error).collect::<Result<_, _>>()?, total })
    }

    pub(crate) async fn forget_errors(&self, service: &ServiceId) -> Result<(), StoreError> {
        let forget = redis::cmd("UNLINK").arg(key(service)).query_async::<()>(&mut self.reader()).await;
        Ok(forget?)
    }
}
