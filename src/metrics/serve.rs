//! The page of metrics over HTTP: one request per connection, read-only, and bounded in everything, because a job can reach it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many connections are served at once; more are closed at once.
const CONNECTIONS: usize = 8;
/// How long one may take from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes. Nobody needs a quarter of it.
const LARGEST: usize = 4 * 1024;

/// Serves `page` at `/metrics` until the incarnation ends.
pub(crate) async fn serve(listener: TcpListener, page: Rc<dyn Fn() -> String>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("the address of the metrics cannot accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let page = Rc::clone(&page);
        tokio::task::spawn_local(async move {
            let _ = timeout(PATIENCE, answer(stream, &*page)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, page: &dyn Fn() -> String) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    let reply = loop {
        if let Some(reply) = reply(&head, page) {
            break reply;
        }
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&chunk[..read]),
        }
    };
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

/// The whole answer to a request, once its head is complete or too long.
fn reply(head: &[u8], page: &dyn Fn() -> String) -> Option<String> {
    let complete = head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n");
    if !complete {
        return (head.len() > LARGEST).then(|| response("431 Request Header Fields Too Large", "", "too long\n", true));
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default().trim_end();
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) || words.next().is_some() {
        return Some(response("400 Bad Request", "", "this is no request\n", true));
    }
    let with_body = match method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Some(response("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD\n", true)),
    };
    let path = target.unwrap_or_default().split('?').next().unwrap_or_default();
    Some(match path {
        "/metrics" => response("200 OK", "", &page(), with_body),
        _ => response("404 Not Found", "", "see /metrics\n", with_body),
    })
}

fn response(status: &str, headers: &str, body: &str, with_body: bool) -> String {
    let length = body.len();
    let body = if with_body { body } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         {headers}Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &[u8]) -> Option<String> {
        reply(head, &|| "page\n".to_owned()).map(|reply| reply.lines().next().unwrap().to_owned())
    }

    #[test]
    fn only_reading_the_one_page_is_possible() {
        for (head, line) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1.1 200 OK"),
            (b"GET /metrics?x=y HTTP/1.0\n\n", "HTTP/1.1 200 OK"),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
            (b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            (b"GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            (b"\xff\xff\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            (b"\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(status(head).as_deref(), Some(line), "{}", String::from_utf8_lossy(head));
        }
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\nHost: x"), None);
        assert_eq!(status(&vec![b'x'; LARGEST + 1]).as_deref(), Some("HTTP/1.1 431 Request Header Fields Too Large"));
    }

    #[test]
    fn a_head_has_the_length_of_the_page_without_it() {
        let head = reply(b"HEAD /metrics HTTP/1.1\r\n\r\n", &|| "page\n".to_owned()).unwrap();
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn fuzz_scrape() {
        crate::fuzz::run("scrape", |bytes| {
            let reply = reply(bytes, &|| "page\n".to_owned());
            if let Some(reply) = &reply {
                let (head, body) = reply.split_once("\r\n\r\n").unwrap();
                assert!(head.starts_with("HTTP/1.1 ") && head.contains("\r\nConnection: close"), "{head}");
                let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap();
                assert!(body.is_empty() || body.len() == length.parse::<usize>().unwrap());
            }
            assert!(reply.is_some() || bytes.len() <= LARGEST, "an answer comes in the end");
            reply.map(|reply| reply.lines().next().map(str::to_owned))
        });
    }
}
