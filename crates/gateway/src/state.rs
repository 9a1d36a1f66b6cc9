//! The last good configuration on disk: what a gateway starts from when no listener answers.
//!
//! One file of length-delimited messages as a listener tells them, closed by `synced`; without that end it is
//! not used. It holds secret tokens, so only its owner may read it, and it is replaced whole.

use std::io::{self, Write};
use std::path::Path;

use bytes::BytesMut;
use prost::Message;
use weir_proto::v1::watch_response::Event;
use weir_proto::v1::{GatewayService, Synced, WatchResponse};

const FILE: &str = "configuration.bin";
const NEW_FILE: &str = "configuration.bin.new";

/// Writes a configuration into a folder, which is made if need be.
///
/// # Errors
/// When the folder or the file cannot be written.
pub(crate) fn write(folder: &Path, services: Vec<GatewayService>, revision: u64) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut bytes = BytesMut::new();
    let events = services.into_iter().map(Event::Put);
    for event in events.chain([Event::Synced(Synced { revision })]) {
        let message = WatchResponse { event: Some(event) };
        message.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
    }
    let new = folder.join(NEW_FILE);
    let mut file = create_private(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(new, folder.join(FILE))
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// When there is no such file, or not a whole one.
pub(crate) fn read(folder: &Path) -> io::Result<(Vec<GatewayService>, u64)> {
    let bytes = std::fs::read(folder.join(FILE))?;
    let mut rest = bytes.as_slice();
    let mut services = Vec::new();
    while !rest.is_empty() {
        match WatchResponse::decode_length_delimited(&mut rest).map_err(io::Error::other)?.event {
            Some(Event::Put(service)) => services.push(service),
            Some(Event::Synced(synced)) if rest.is_empty() => return Ok((services, synced.revision)),
            _ => break,
        }
    }
    Err(io::Error::other("the kept configuration has no end"))
}

fn create_private(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        // A file that was there already keeps its mode.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_err());
        let services = vec![GatewayService { id: "a".into(), ..Default::default() }];
        write(folder.path(), services.clone(), 7).unwrap();
        assert_eq!(read(folder.path()).unwrap(), (services, 7));
    }

    #[test]
    fn a_torn_file_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), vec![GatewayService { id: "a".into(), ..Default::default() }], 7).unwrap();
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
        assert!(read(folder.path()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), vec![], 1).unwrap();
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
