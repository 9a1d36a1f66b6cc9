//! Sends a case over a connection of its own and reads what comes back, without waiting for luck.
//!
//! The strict reading of the case says how many answers there can be. A proxy that has given them all is told that
//! nothing more comes, unless it owes nothing; it then has to close.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::reference::{End, Script};

/// Longest wait for an answer that has to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may look at something irregular before the client says that nothing more comes.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);
/// Pause between the pieces of a case.
const PIECE_PAUSE: Duration = Duration::from_millis(1);

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The final statuses, in order; 0: no HTTP.
    pub(crate) statuses: Vec<u16>,
    pub(crate) close: Close,
}

/// How the connection ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// By the server, by itself.
    ByServer,
    /// By the server, after the client had said that nothing more comes.
    AfterClient,
    /// By the client, which had all answers.
    #[default]
    ByClient,
    /// By the client, which had waited long enough.
    Overdue,
}

/// Sends a case in pieces, cut at these places, and hears the gateway out.
pub(crate) async fn converse(address: SocketAddr, bytes: &[u8], cuts: &[usize], script: &Script) -> Heard {
    let (mut reader, mut writer) = connect(address).await;
    let mut answers = Answers::to(script);
    let ((), close) = tokio::join!(send(&mut writer, bytes, cuts), async {
        let wanted = script.requests.len();
        let all_came = answers.read(&mut reader, |answers| answers.statuses.len() >= wanted, PATIENCE).await;
        match all_came {
            Ended::Closed => Some(Close::ByServer),
            Ended::Quiet => Some(Close::Overdue),
            Ended::Enough => None,
        }
    });
    let close = match close {
        Some(close) => close,
        None => finish(&mut answers, &mut reader, &mut writer, script).await,
    };
    Heard { statuses: answers.finished(), close }
}

/// After all answers that there can be: whatever is behind them, no request comes of it.
async fn finish(
    answers: &mut Answers,
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    script: &Script,
) -> Close {
    let patience = match script.end {
        End::Clean => return Close::ByClient,
        End::Closes => PATIENCE,
        End::Irregular(..) => SECOND_THOUGHTS,
        End::Partial(_) => Duration::ZERO,
    };
    if answers.read(reader, |_| false, patience).await == Ended::Closed {
        return Close::ByServer;
    }
    // The server may have closed already.
    let _ = writer.shutdown().await;
    match answers.read(reader, |_| false, PATIENCE).await {
        Ended::Closed => Close::AfterClient,
        Ended::Enough | Ended::Quiet => Close::Overdue,
    }
}

/// The same with a server that may read anything as it likes: it is heard until it has answered the canary, or is
/// quiet for a while.
pub(crate) async fn overhear(
    address: SocketAddr,
    bytes: &[u8],
    cuts: &[usize],
    script: &Script,
    quiet: Duration,
) -> Heard {
    let (mut reader, mut writer) = connect(address).await;
    let mut answers = Answers::to(script);
    let ((), ended) = tokio::join!(
        send(&mut writer, bytes, cuts),
        answers.read(&mut reader, |answers| answers.is_canary_answered, quiet)
    );
    let close = if ended == Ended::Closed { Close::ByServer } else { Close::ByClient };
    Heard { statuses: answers.finished(), close }
}

async fn connect(address: SocketAddr) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    // Pieces are to leave as they are, and at once.
    stream.set_nodelay(true).unwrap();
    stream.into_split()
}

async fn send(writer: &mut OwnedWriteHalf, bytes: &[u8], cuts: &[usize]) {
    let mut sent = 0;
    // A server that has refused reads no further; then the rest cannot be sent.
    for cut in cuts {
        let _ = writer.write_all(&bytes[sent..*cut]).await;
        sent = *cut;
        tokio::time::sleep(PIECE_PAUSE).await;
    }
    let _ = writer.write_all(&bytes[sent..]).await;
}

#[derive(PartialEq, Eq)]
enum Ended {
    /// What was waited for has come.
    Enough,
    Closed,
    /// Nothing has come for long enough.
    Quiet,
}

/// Answers as they come in.
struct Answers {
    /// Which of them have no body whatever they say.
    to_head: Vec<bool>,
    statuses: Vec<u16>,
    /// The recorder has put its marker on an answer.
    is_canary_answered: bool,
    bytes: Vec<u8>,
}

impl Answers {
    fn to(script: &Script) -> Self {
        let last = match &script.end {
            End::Partial(head) | End::Irregular(_, head) => head.as_ref(),
            End::Clean | End::Closes => None,
        };
        let to_head = script.requests.iter().chain(last).map(|request| request.method == "HEAD").collect();
        Self { to_head, statuses: Vec::new(), is_canary_answered: false, bytes: Vec::new() }
    }

    async fn read(
        &mut self,
        reader: &mut OwnedReadHalf,
        is_enough: impl Fn(&Self) -> bool,
        quiet: Duration,
    ) -> Ended {
        loop {
            self.parse();
            if is_enough(self) {
                return Ended::Enough;
            }
            match timeout(quiet, reader.read_buf(&mut self.bytes)).await {
                Err(_) => return Ended::Quiet,
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return Ended::Closed,
            }
        }
    }

    fn parse(&mut self) {
        while let Some(head) = self.head()
            && self.bytes.len() >= head.length
        {
            self.bytes.drain(..head.length);
            self.is_canary_answered |= head.is_of_canary;
            self.note(head.status);
        }
    }

    /// The first answer, once its head is there.
    fn head(&self) -> Option<Head> {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).filter(|_| text.starts_with("http/1."));
        let status = status.and_then(|status| status.parse().ok()).unwrap_or_default();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let is_bodiless = matches!(status, 100..=199 | 204 | 304)
            || self.to_head.get(self.statuses.len()).copied().unwrap_or_default();
        let body = value("content-length:").and_then(|text| text.parse().ok()).filter(|_| !is_bodiless);
        let is_of_canary = value("x-case:").is_some_and(|marker| marker.contains("canary"));
        Some(Head { status, length: end + body.unwrap_or(0_usize), is_of_canary })
    }

    fn note(&mut self, status: u16) {
        if !(100..200).contains(&status) {
            self.statuses.push(status);
        }
    }

    /// With a last answer whose body did not come.
    fn finished(mut self) -> Vec<u16> {
        if let Some(head) = self.head() {
            self.note(head.status);
        } else if !self.bytes.is_empty() {
            self.note(0);
        }
        self.statuses
    }
}

/// The start of an answer.
struct Head {
    status: u16,
    /// With its body.
    length: usize,
    is_of_canary: bool,
}
