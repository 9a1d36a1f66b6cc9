//! What bytes go over, towards clients and upstreams: a socket as it is, or TLS on it.
//!
//! A plain socket is read and written by system calls of our own: those of the C library can be cancelled, and pay for
//! that with several atomic operations each.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// What is read at a time when nobody knows how much is to come.
pub(crate) const READ_BYTES: usize = 8 << 10;

/// The socket; `T` is TLS on one.
pub(crate) enum Socket<T> {
    Plain(TcpStream),
    Tls(Box<T>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket<T> {
    /// Reads a little behind what was `read`; 0: the other side sends no more.
    pub(crate) fn poll_read_some(
        &mut self,
        context: &mut Context<'_>,
        read: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        match self {
            Self::Plain(tcp) => poll_recv(tcp, context, &mut bytes, read),
            Self::Tls(tls) => {
                let mut buffer = ReadBuf::uninit(&mut bytes);
                ready!(Pin::new(tls).poll_read(context, &mut buffer))?;
                read.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    /// Whether the other side has neither closed it nor said anything, as far as the system told.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Plain(tcp) => {
                tcp.try_read(&mut byte).is_err_and(|problem| problem.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => {
                let mut context = Context::from_waker(std::task::Waker::noop());
                Pin::new(tls).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }
}

fn poll_recv(
    tcp: &TcpStream,
    context: &mut Context<'_>,
    bytes: &mut [MaybeUninit<u8>],
    read: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(context))?;
        let mut count = None;
        let tried = tcp.try_io(Interest::READABLE, || {
            let ((found, rest), _) = recv(tcp, &mut *bytes, RecvFlags::empty())?;
            read.extend_from_slice(found);
            count = Some(found.len());
            // Less than there was room for is all there is: the next time waits to be told of more.
            if found.is_empty() || rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match (count, tried) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(problem)) if problem.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(problem));
            }
            // It was said to be ready, and is not.
            (None, _) => {}
        }
    }
}

fn poll_send(tcp: &TcpStream, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(context))?;
        let mut count = None;
        let tried = tcp.try_io(Interest::WRITABLE, || {
            let sent = send(tcp, bytes, SendFlags::NOSIGNAL)?;
            count = Some(sent);
            // What takes less than it was given is full.
            if sent == 0 || sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match (count, tried) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(problem)) if problem.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(problem));
            }
            (None, _) => {}
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(tcp) => poll_send(tcp, context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The end under test, and the other one.
    async fn pair() -> (Socket<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::Plain(listener.accept().await.unwrap().0), other)
    }

    #[tokio::test]
    async fn what_is_sent_is_read_piece_by_piece() {
        let (mut socket, mut other) = pair().await;
        let mut read = BytesMut::from("a");
        assert!(socket.is_silent());
        assert!(poll_fn(|context| socket.poll_read_some(context, &mut read)).now_or_never().is_none());
        other.write_all(b"bc").await.unwrap();
        assert_eq!(poll_fn(|context| socket.poll_read_some(context, &mut read)).await.unwrap(), 2);
        assert_eq!(&read[..], b"abc");
        let long = vec![b'x'; 3 * READ_BYTES];
        other.write_all(&long).await.unwrap();
        while read.len() < 3 + long.len() {
            poll_fn(|context| socket.poll_read_some(context, &mut read)).await.unwrap();
        }
        drop(other);
        assert_eq!(poll_fn(|context| socket.poll_read_some(context, &mut read)).await.unwrap(), 0);
        assert!(!socket.is_silent());
        assert_eq!(read.len(), 3 + long.len());
    }

    #[tokio::test]
    async fn more_than_fits_is_sent_when_there_is_room_again() {
        let (mut socket, mut other) = pair().await;
        let long: Vec<u8> = (0..64_u8).cycle().take(16 << 20).collect();
        let sent = long.clone();
        let sending = tokio::spawn(async move {
            socket.write_all(&sent).await.unwrap();
            socket.shutdown().await.unwrap();
        });
        let mut read = Vec::new();
        other.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert!(read == long);
    }
}
