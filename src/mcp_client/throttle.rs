//! A limit on what is read from a child process, so that one that writes without end costs next to nothing.

use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How many bytes may be read at once, and how many more each second; clones share the allowance.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    // Held for arithmetic only.
    left: Arc<Mutex<Left>>,
    per_second: i64,
}

#[derive(Debug)]
struct Left {
    /// Negative where the last read exceeded the allowance.
    bytes: i64,
    at: Instant,
    /// How many requests are unanswered.
    requests: usize,
}

/// A request that may be answered at length. Dropping the last one takes the rest of its allowance away.
pub(super) struct Request(Allowance);

impl Drop for Request {
    fn drop(&mut self) {
        let mut left = self.0.left.lock();
        left.requests = left.requests.saturating_sub(1);
        if left.requests == 0 {
            left.bytes = left.bytes.min(self.0.per_second);
        }
    }
}

/// How long the reader rests once the allowance is used up.
const REST: Duration = Duration::from_millis(100);

impl Allowance {
    pub(super) fn new(bytes: i64, per_second: i64) -> Self {
        let at = Instant::now();
        Self {
            left: Arc::new(Mutex::new(Left {
                bytes,
                at,
                requests: 0,
            })),
            per_second,
        }
    }

    /// Allows `bytes` to be read at once for as long as the returned request lives, which they may answer.
    pub(super) fn request(&self, bytes: i64) -> Request {
        let mut left = self.left.lock();
        left.bytes = left.bytes.max(bytes);
        left.requests += 1;
        Request(self.clone())
    }

    fn is_used_up(&self) -> bool {
        let mut left = self.left.lock();
        let earned = (self.per_second as f64 * left.at.elapsed().as_secs_f64()) as i64;
        if earned > 0 {
            left.at = Instant::now();
            // What is not used within a second is not saved up.
            left.bytes = left.bytes.max((left.bytes + earned).min(self.per_second));
        }
        left.bytes <= 0
    }

    fn use_up(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.lock().bytes -= bytes;
    }
}

/// A stream that is read within an allowance; its writer blocks meanwhile.
pub(super) struct Throttled<R> {
    stream: R,
    allowance: Allowance,
    rest: Option<Pin<Box<Sleep>>>,
}

impl<R> Throttled<R> {
    pub(super) fn new(stream: R, allowance: Allowance) -> Self {
        Self {
            stream,
            allowance,
            rest: None,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Throttled<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(rest) = &mut this.rest {
                ready!(rest.as_mut().poll(cx));
                this.rest = None;
            }
            if !this.allowance.is_used_up() {
                break;
            }
            this.rest = Some(Box::pin(sleep(REST)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.allowance.use_up(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test(start_paused = true)]
    async fn an_endless_stream_is_read_at_the_allowed_rate() {
        let allowance = Allowance::new(1_000_000, 10_000);
        let mut stream = Throttled::new(tokio::io::repeat(b'y'), allowance.clone());
        let mut buffer = vec![0; 8_192];
        let mut read = 0;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            read += stream.read(&mut buffer).await.expect("it never fails");
        }
        assert!((1_000_000..1_300_000).contains(&read), "{read}");
        let _request = allowance.request(500_000);
        let began = Instant::now();
        let mut answer = vec![0; 500_000];
        stream
            .read_exact(&mut answer)
            .await
            .expect("it never fails");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
