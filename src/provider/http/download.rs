//! Fetching a file that is too large for memory: an agent's package.

use std::fs::File;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use tokio::sync::{mpsc, oneshot};

use super::client::Http;
use super::proxy::unknown_to_it;
use super::redirect::without_query;
use super::trouble::{not_the_forge, unreachable};
use crate::encode::hex;
use crate::os::priority;
use crate::provider::fault::Fault;

/// A package of an agent: some 200 MB, from wherever the forge says.
const LARGEST_DOWNLOAD: usize = 1024 * 1024 * 1024;
const DOWNLOAD: Duration = Duration::from_secs(30 * 60);
const REDIRECTS: u32 = 5;
/// How many pieces of it, of some 16 kB, may wait to be written.
const CHUNKS_AHEAD: usize = 64;

impl Http {
    /// Writes what is found at `url` to a file, and gives its SHA-256 in hexadecimal digits. Nothing is said about who asks: a
    /// forge's packages lie with others. Disk and digest are a thread's, the last to be given either, so that a slow disk keeps
    /// nobody waiting.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] for everything that goes wrong, the file's disk included.
    pub async fn download(&self, url: &str, to: &mut File) -> Result<String, Fault> {
        let mut address = url.to_owned();
        for _ in 0..REDIRECTS {
            // What leads to a package may open it to everybody.
            let shown = without_query(&address).to_owned();
            tracing::debug!(url = shown, "fetching");
            let request = self.client()?.get(&address).timeout(DOWNLOAD);
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Err(self.no_way(&shown, &error).await),
            };
            let status = response.status();
            if status.as_u16() == 407 {
                return Err(unknown_to_it(&self.network, &shown));
            }
            if status.is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                let next = next.and_then(|location| response.url().join(location).ok());
                let next = next.filter(|next| next.scheme() == "https" || !self.encrypted);
                address =
                    next.ok_or_else(|| Fault::Unreachable(format!("{shown} leads nowhere ({status})")))?.to_string();
                continue;
            }
            if !status.is_success() {
                return Err(Fault::Unreachable(format!("{shown} answered {}", status.as_u16())));
            }
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
                return Err(not_the_forge(&shown, status.as_u16(), "a page for people"));
            }
            let on_disk = |error: io::Error| Fault::Unreachable(format!("it cannot be written: {error}"));
            let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
            let written = write_chunks(received, to.try_clone().map_err(on_disk)?);
            let mut length = 0;
            while let Some(chunk) =
                response.chunk().await.map_err(|error| unreachable(&self.network, &shown, &error))?
            {
                length += chunk.len();
                if length > LARGEST_DOWNLOAD {
                    return Err(Fault::Unreachable(format!("{shown} has more than {LARGEST_DOWNLOAD} bytes")));
                }
                // Whoever writes has ended, and says why.
                if chunks.send(chunk.into()).await.is_err() {
                    break;
                }
            }
            drop(chunks);
            return match written.await {
                Ok(digest) => digest.map_err(on_disk),
                Err(_) => Err(Fault::Unreachable("whoever wrote it ended early".to_owned())),
            };
        }
        Err(Fault::Unreachable(format!("{url} leads on more than {REDIRECTS} times")))
    }
}

/// Writes pieces as they come, on a thread of its own, and gives the SHA-256 of them all. It ends with whoever sends them.
fn write_chunks(mut chunks: mpsc::Receiver<Vec<u8>>, mut file: File) -> oneshot::Receiver<io::Result<String>> {
    let (result, written) = oneshot::channel();
    let thread = thread::Builder::new().spawn(move || {
        priority::step_back();
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut write = || {
            while let Some(chunk) = chunks.blocking_recv() {
                digest.update(&chunk);
                file.write_all(&chunk)?;
            }
            Ok(())
        };
        let written = write().map(|()| hex(digest.finish().as_ref()));
        let _ = result.send(written);
    });
    if let Err(error) = thread {
        // The pieces find nobody who takes them, and the whole is tried again later.
        tracing::warn!("no thread can be had ({error}) to write what is fetched");
    }
    written
}
