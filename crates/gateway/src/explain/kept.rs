//! The latest refusals, to be asked about by their ids; and, where that is switched on, a file of them.
//!
//! What is kept is what the refusal was made of, in a ring of fixed length; it becomes text when somebody asks. The file is
//! written by a thread of its own and turned over at its size, so the two of them hold at most twice as much.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::error;

use super::Explanation;
use super::shown::{Answer, Facts, LimitShown, answer_of, limit_of};
use crate::meters;
use crate::proxy::Trail;
use crate::reply::Refusal;

/// Refusals in memory.
const KEPT_MAX: usize = 4_096;
/// Longest method that is kept.
const METHOD_CHARS_MAX: usize = 32;
/// Refusals that wait to be written to the file; further ones are not.
const WAITING_MAX: usize = 4_096;

/// Where refusals are kept longer.
#[derive(Debug, Clone)]
pub struct RefusalLog {
    /// Lines of JSON.
    pub file: PathBuf,
    /// It is turned over then: what it held before is kept as `<file>.1`. Default 64 MiB.
    pub bytes_max: u64,
}

/// A refusal.
pub(crate) struct Kept {
    id: String,
    at_unix_ms: i64,
    method: String,
    path: String,
    answer: Answer,
    limit: Option<LimitShown>,
    application: Option<String>,
    facts: Facts,
}

impl Kept {
    pub(crate) fn new(
        id: &str,
        (method, path): (&str, &str),
        refusal: &Refusal,
        trail: Trail,
        policies: Vec<&'static str>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: id.to_owned(),
            at_unix_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
            method: method.chars().take(METHOD_CHARS_MAX).collect(),
            path: path.to_owned(),
            answer: answer_of(refusal),
            limit: limit_of(refusal),
            application: refusal.application().map(|application| application.application.to_string()),
            facts: Facts::of(trail).with_policies(policies),
        }
    }

    fn explanation(&self) -> Explanation {
        Explanation {
            request_id: Some(self.id.clone()),
            at_unix_ms: Some(self.at_unix_ms),
            method: self.method.clone(),
            path: self.path.clone(),
            answer: self.answer.clone(),
            application: self.application.clone(),
            limits: self.limit.clone().into_iter().collect(),
            ..self.facts.explanation()
        }
    }
}

/// The latest refusals.
pub(crate) struct Ring {
    kept: Mutex<VecDeque<Kept>>,
    file: Option<(PathBuf, SyncSender<Explanation>)>,
}

impl Ring {
    /// Beside a file, perhaps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn new(log: Option<&RefusalLog>) -> std::io::Result<Self> {
        let file = match log {
            Some(log) => {
                let (sender, receiver) = sync_channel(WAITING_MAX);
                let writer = Writer::open(log)?;
                std::thread::Builder::new()
                    .name("refusals".into())
                    .spawn(move || writer.write_all(&receiver))?;
                Some((log.file.clone(), sender))
            }
            None => None,
        };
        Ok(Self { kept: Mutex::default(), file })
    }

    pub(crate) fn keep(&self, kept: Kept) {
        if let Some((_, sender)) = &self.file
            && sender.try_send(kept.explanation()).is_err()
        {
            meters::refusal_not_written();
        }
        let mut ring = self.kept.lock();
        if ring.len() >= KEPT_MAX {
            ring.pop_front();
        }
        ring.push_back(kept);
    }

    /// The latest of that id.
    pub(crate) fn find(&self, id: &str) -> Option<Explanation> {
        let in_memory = self.kept.lock().iter().rev().find(|kept| kept.id == id).map(Kept::explanation);
        in_memory.or_else(|| {
            let (file, _) = self.file.as_ref()?;
            find_in(file, id).or_else(|| find_in(&turned(file), id))
        })
    }
}

/// What the file held before.
fn turned(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn find_in(file: &Path, id: &str) -> Option<Explanation> {
    let lines = BufReader::new(File::open(file).ok()?).lines();
    let named = lines.map_while(Result::ok).filter(|line| line.contains(id));
    let read = named.filter_map(|line| serde_json::from_str::<Explanation>(&line).ok());
    read.filter(|explanation| explanation.request_id.as_deref() == Some(id)).last()
}

/// Writes refusals down.
struct Writer {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Writer {
    fn open(log: &RefusalLog) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log.file)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: log.file.clone(), file, bytes, bytes_max: log.bytes_max })
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn write_all(mut self, refusals: &Receiver<Explanation>) {
        let mut is_failing = false;
        for refusal in refusals {
            let written = self.write(&refusal);
            if let Err(problem) = &written {
                // Whatever has become of the file: it is opened anew.
                let _ = self.reopen();
                meters::refusal_not_written();
                if !is_failing {
                    error!(%problem, file = %self.path.display(), "refusals cannot be written down");
                }
            }
            is_failing = written.is_err();
        }
    }

    fn write(&mut self, refusal: &Explanation) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(refusal)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.bytes_max {
            std::fs::rename(&self.path, turned(&self.path))?;
            self.reopen()?;
        }
        self.file.write_all(&line)?;
        self.bytes += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: &str) -> Kept {
        Kept::new(id, ("GET", "/x"), &Refusal::NoService, Trail::default(), vec![])
    }

    #[test]
    fn the_ring_has_an_end() {
        let ring = Ring::new(None).unwrap();
        for number in 0..KEPT_MAX + 1 {
            ring.keep(kept(&format!("id-{number}")));
        }
        assert!(ring.find("id-0").is_none(), "the oldest has gone");
        let newest = ring.find(&format!("id-{KEPT_MAX}")).unwrap();
        assert_eq!((newest.answer.status, newest.path.as_str()), (Some(404), "/x"));
        assert_eq!(ring.kept.lock().len(), KEPT_MAX);
    }

    #[test]
    fn the_file_is_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = RefusalLog { file: dir.path().join("refusals"), bytes_max: 4_000 };
        let mut writer = Writer::open(&log).unwrap();
        for number in 0..100 {
            writer.write(&kept(&format!("id-{number:03}")).explanation()).unwrap();
        }
        for file in [log.file.clone(), turned(&log.file)] {
            assert!(std::fs::metadata(&file).unwrap().len() <= 4_000);
        }
        assert!(find_in(&log.file, "id-099").is_some() && find_in(&log.file, "id-000").is_none());
        let again = Ring::new(Some(&log)).unwrap();
        assert!(again.find("id-099").is_some(), "also after a restart");
        assert!(again.find("id-09").is_none());
    }
}
